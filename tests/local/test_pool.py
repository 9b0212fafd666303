"""The pool of one process: membership, also of a pool that is a cluster's part."""

import pytest

from cluster_pool import ClusterPoolError, Connection, ConnectionsPool, IdTakenError
from cluster_pool.testing import FakeWebSocket, fake_cluster
from tests.support import async_test


@async_test
async def test_leaving_the_pool_closes_its_connections_with_1012() -> None:
    """It waits until they are closed."""
    async with ConnectionsPool() as pool:
        websocket = FakeWebSocket()
        await pool.new_connection(Connection("1", "n", websocket))
    assert websocket.closed == (1012, "")


@async_test
async def test_with_reject_the_older_connection_keeps_its_id() -> None:
    """The newer connection belongs to no pool, and may be used elsewhere."""
    async with ConnectionsPool(on_conflict="reject") as pool, ConnectionsPool() as other:
        older = Connection("1", "n", FakeWebSocket())
        newer = Connection("1", "n", FakeWebSocket())
        await pool.new_connection(older)
        with pytest.raises(IdTakenError):
            await pool.new_connection(newer)
        assert pool.get_connection("n", "1") is older
        await other.new_connection(newer)


@async_test
async def test_the_local_part_of_a_cluster_pool_does_not_change_membership() -> None:
    """It sends and closes here; an id that only it knew would be missing in the registry."""
    async with fake_cluster(1) as cluster:
        _, websocket = await cluster.connect(0, "n", "1")
        assert await cluster[0].local.send("n", "1", "hi")
        assert await websocket.wait_sent() == ["hi"]
        with pytest.raises(ClusterPoolError, match="belongs to the ClusterPool"):
            await cluster[0].local.new_connection(Connection("2", "n", FakeWebSocket()))
