"""The table of a node: operations on many of its connections."""

import asyncio

from cluster_pool import (
    Connection,
    ConnectionsPool,
    SendResult,
)
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


@async_test
async def test_a_broadcast_over_many_keeps_the_order_of_sends_behind_it() -> None:
    """A fan-out that yields is not overtaken by a later send to one it has not reached."""
    async with ConnectionsPool() as pool:
        sockets = []
        for at in range(3500):
            connection = Connection(str(at), "n", FakeWebSocket())
            sockets.append(connection.websocket)
            await pool.new_connection(connection)
        first = asyncio.create_task(pool.broadcast_message("n", "1"))
        await asyncio.sleep(0)
        second = asyncio.create_task(pool.send("n", "3499", "2"))
        third = asyncio.create_task(pool.broadcast_message("n", "3"))
        assert await first == 3500
        assert await second is SendResult.DELIVERED
        assert await third == 3500
        assert await sockets[3499].wait_sent(3) == ["1", "2", "3"]
        assert await sockets[0].wait_sent(2) == ["1", "3"]
