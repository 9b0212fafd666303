"""A crowd of WebSockets, in both of its manners."""

import pytest

from cluster_pool import ClusterPool
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.crowd import SILENT, STUCK
from tools.harness.internals import NodeServer
from tools.harness.programs import program


@pytest.mark.parametrize("manner", [SILENT, STUCK])
@async_test
async def test_a_crowd_comes_and_goes(servers: dict[str, RedisServer], manner: str) -> None:
    """All are members once it says so, and none when it has gone."""
    async with ClusterPool(servers["valkey"].url, prefix=f"cluster_pool:{manner}") as pool:
        node = NodeServer(pool, port=0)
        await node.start()
        async with program("tools.harness.crowd", str(node.port), "/ws/n", "20", manner) as crowd:
            assert crowd.hello["seconds"] > 0
            assert await pool.count("n") == 20
            await pool.broadcast_message("n", "hello")
        await eventually(lambda: not pool.has_namespace("n"))
        await node.stop()
