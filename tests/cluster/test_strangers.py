"""Others on the same Redis: who only looks on is no node, and who takes our names is noticed."""

import pytest

from cluster_pool import NodeUnreachableError, SendResult
from tests.clusters import Backend
from tests.support import async_test, eventually


@async_test
async def test_who_listens_to_a_pattern_is_no_node(backend: Backend) -> None:
    """A monitor hears everything, and answers for nobody: what no node heard, nobody heard."""
    publisher = backend.publisher()
    async with (
        backend.pools() as (one, two),
        publisher,
        backend.client() as client,
        client.pubsub() as monitor,
    ):
        await two.join("n", "alice")
        await monitor.psubscribe("*")
        assert await anext(monitor.listen())
        assert await one.send("n", "alice", "heard") is SendResult.ROUTED
        assert await one.broadcast_message("n", "heard") == 1
        assert await one.broadcast_message("nobody", "heard by the monitor alone") == 0
        assert await publisher.close_all("nobody") == 0
        with pytest.raises(NodeUnreachableError, match="nobody listens"):
            await one.drain_node("nobody", force=True)
        ear = two._session._ear
        assert ear is not None
        ear.unsubscribe([f"{backend.prefix}:{{~}}:node:node-2".encode()])
        assert await ear.confirmed(f"{backend.prefix}:{{last}}".encode())
        assert await one.send("n", "alice", "x") is SendResult.UNREACHABLE
        await eventually(lambda: two.statistics()["generations"] == 2 and two.ready)
        assert await one.send("n", "alice", "x", confirm=True) is SendResult.DELIVERED
