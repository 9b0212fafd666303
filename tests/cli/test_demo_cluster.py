"""The demo's nodes and clients: a node that does not start ends the demo, and none outlives it."""

import pytest

from cluster_pool.cli.demo_cluster import DemoFailedError, cast
from tests.servers import RedisServer
from tests.support import async_test

pytestmark = pytest.mark.real


@async_test
async def test_clients_are_spread_evenly_over_nodes_that_end_with_the_demo(
    own_server: RedisServer,
) -> None:
    """Each client is a member when all have started."""
    async with cast(own_server.url, "cluster_pool:demo", 2, 4) as players:
        first, second = players.nodes
        assert [len(players.of(node)) for node in (first, second)] == [2, 2]
        client = players.clients[0]
        assert await client.ask(send=players.clients[1].id, text="hi") == "delivered"
        assert await first.terminate() == 0
        assert await players.of(first)[0].ended() == 1012
    assert not second.running


@async_test
async def test_a_node_that_does_not_start_fails_the_demo() -> None:
    """The error names it."""
    with pytest.raises(DemoFailedError, match="node-1 did not start"):
        async with cast("redis://127.0.0.1:1", "cluster_pool:demo", 1, 0):
            pass
