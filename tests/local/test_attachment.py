"""Connections with a pool, and without one."""

import asyncio

import pytest

from cluster_pool import (
    ClusterPoolError,
    Connection,
    ConnectionsPool,
    SendResult,
)
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


@async_test
async def test_a_connection_works_without_a_pool() -> None:
    """It sends in order, and closes."""
    socket = FakeWebSocket()
    connection = Connection("1", "default", socket)
    for number in range(5):
        assert await connection.send(str(number)) is SendResult.DELIVERED
    assert await connection.send_then_close("last", 4000, "enough") is SendResult.DELIVERED
    await connection.close()
    assert socket.sent == ["0", "1", "2", "3", "4", "last"]
    assert socket.closed == (4000, "enough")
    assert connection.closed
    assert (connection.close_code, connection.close_reason) == (4000, "enough")
    await asyncio.sleep(0)


@async_test
async def test_a_connection_belongs_to_one_pool() -> None:
    """It cannot be a member of two pools."""
    async with ConnectionsPool() as one, ConnectionsPool() as two:
        connection = Connection("1", "n", FakeWebSocket())
        await one.new_connection(connection)
        with pytest.raises(ClusterPoolError, match="another pool"):
            await two.new_connection(connection)
