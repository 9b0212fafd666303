"""Infos of connections in one process, where only their own code sees them."""

import pytest

from cluster_pool import ClusterPoolError, Connection, ConnectionsPool, InvalidValueError, Limits
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


@async_test
async def test_an_info_belongs_to_one_membership_and_ends_with_it() -> None:
    async with ConnectionsPool(limits=Limits(info_bytes=10)) as pool:
        connection = Connection("a", "room", FakeWebSocket(), info=1)
        await pool.new_connection(connection)
        await connection.join("lobby", info=2)
        await connection.update_info(3)
        await connection.update_info(4, namespace="lobby")
        assert connection.info == 3
        await connection.leave("lobby")
        with pytest.raises(ClusterPoolError, match="no member of 'lobby'"):
            await connection.update_info(5, namespace="lobby")
        with pytest.raises(InvalidValueError, match="12 bytes"):
            await connection.update_info("x" * 10)
        assert connection.info == 3
        await pool.remove_connection(connection)
        assert connection.info is None


@async_test
async def test_a_join_that_fails_tells_nothing() -> None:
    """A connection without a pool can join nothing; its info there is none."""
    connection = Connection("a", "room", FakeWebSocket())
    with pytest.raises(ClusterPoolError):
        await connection.join("lobby", info=1)
    assert connection._infos is None
