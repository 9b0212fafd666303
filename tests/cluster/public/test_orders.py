"""Orders about drains, from another node of the cluster and from a publisher."""

import pytest

from cluster_pool import (
    ClusterPool,
    InvalidIdError,
    NodeState,
    NodeUnreachableError,
    Publisher,
)
from tests.clusters import Backend
from tests.drains import join, times_of
from tests.support import async_test, eventually

SECRET = "known to all of the cluster"


@pytest.mark.parametrize("secret", [None, SECRET], ids=["open", "sealed"])
@pytest.mark.parametrize("teller", ["pool", "publisher"])
@async_test
async def test_orders_are_obeyed(backend: Backend, secret: str | None, teller: str) -> None:
    """Drain, pause, resume, cancel, drain again, activate: the node does it and says so."""
    async with (
        backend.pools(secret=secret) as (one, two),
        backend.publisher(secret=secret) as publisher,
    ):
        says: ClusterPool | Publisher = two if teller == "pool" else publisher
        sockets = await join(one, 40)
        await says.drain_node("node-1", 50, "bye", 4001, announce=0)
        await eventually(lambda: len(times_of(sockets)) >= 2)
        await says.pause_drain("node-1")
        assert one.statistics()["drain"]["paused"]
        await says.resume_drain("node-1")
        assert not one.statistics()["drain"]["paused"]
        await says.cancel_drain("node-1")
        await eventually(lambda: one.state is NodeState.ACTIVE)
        assert len(times_of(sockets)) < 40
        await says.drain_node("node-1", 1000, "bye", 4001, grace=60, announce=30)
        await eventually(lambda: one.state is NodeState.ANNOUNCING)
        await says.drain_node("node-1", announce=0)
        await eventually(lambda: one.state is NodeState.DRAINED)
        assert {socket.closed for socket in sockets} == {(4001, "draining")}
        assert all(socket.sent == ["bye"] for socket in sockets)
        await says.activate("node-1")
        assert one.ready
        await says.activate("node-1")


@async_test
async def test_a_node_that_is_not_there(backend: Backend) -> None:
    """No node listens under its id: pools and publishers are told so at once."""
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        for says in (one, publisher):
            with pytest.raises(NodeUnreachableError, match="nobody listens"):
                await says.drain_node("elsewhere", 5)
            with pytest.raises(NodeUnreachableError):
                await says.activate("elsewhere")
            with pytest.raises(InvalidIdError):
                await says.drain_node("", 5)
