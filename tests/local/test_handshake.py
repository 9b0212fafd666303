"""A connection whose handshake is not answered yet."""

import asyncio

from cluster_pool import (
    Connection,
    ConnectionsPool,
    Limits,
    SendResult,
    Timing,
)
from cluster_pool.core.message import outgoing
from cluster_pool.local.handshake import hold, release_hold
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


@async_test
async def test_a_held_connection_keeps_messages_and_then_delivers_them() -> None:
    """Before its handshake is done nothing is written, nothing is lost, and it is bounded."""
    async with ConnectionsPool(limits=Limits(outbox_bytes=100)) as pool:
        connection = Connection("1", "n", FakeWebSocket())
        hold(connection)
        await pool.new_connection(connection)
        assert await connection.send("a") is SendResult.DELIVERED
        assert await connection.send("b" * 99) is SendResult.DELIVERED
        assert await connection.send("c") is SendResult.REFUSED
        await asyncio.sleep(0.01)
        assert connection.websocket.sent == []
        release_hold(connection)
        assert await connection.websocket.wait_sent(2) == ["a", "b" * 99]


def connected(id: str = "1") -> Connection:
    return Connection(id, "n", FakeWebSocket())


@async_test
async def test_the_first_message_of_a_held_connection_takes_no_room_of_others() -> None:
    """The largest message is held behind it, and one more is refused."""
    async with ConnectionsPool(limits=Limits(message_bytes=10, outbox_bytes=10)) as pool:
        connection = connected()
        hold(connection, outgoing("welcome", 10))
        await pool.new_connection(connection)
        assert await connection.send("x" * 10)
        assert not await connection.send("y")
        release_hold(connection)
        assert await connection.websocket.wait_sent(2) == ["welcome", "x" * 10]


@async_test
async def test_a_close_before_the_handshake_waits_for_it() -> None:
    """Messages before it are sent first, in order; later ones are refused, and it is no member any
    longer."""
    async with ConnectionsPool() as pool:
        connection = connected()
        hold(connection)
        await pool.new_connection(connection)
        assert await pool.send("n", "1", "first") is SendResult.DELIVERED
        assert await pool.send_then_close("n", "1", "last", 4000, "out") is SendResult.DELIVERED
        assert await connection.send("late") is SendResult.REFUSED
        assert connection.closed
        assert not pool.has_namespace("n")
        await asyncio.sleep(0.01)
        assert (connection.websocket.sent, connection.websocket.closed) == ([], None)
        release_hold(connection)
        assert await connection.websocket.wait_closed() == (4000, "out")
        assert connection.websocket.sent == ["first", "last"]


@async_test
async def test_a_handshake_that_never_ends_is_cut_at_the_deadline() -> None:
    """Waiting for the close ends then, and not before."""
    async with ConnectionsPool(timing=Timing(close=0.2)) as pool:
        never, late = connected("never"), connected("late")
        for one in (never, late):
            hold(one)
            await pool.new_connection(one)
            await one.send("held")
        closing = [asyncio.create_task(one.close(4000, "out")) for one in (never, late)]
        await asyncio.sleep(0.05)
        assert not any(task.done() for task in closing)
        release_hold(late)
        await asyncio.gather(*closing)
        assert (never._forced, never.websocket.sent, never.websocket.closed) == (True, [], None)
        assert (late._forced, late.websocket.sent) == (False, ["held"])
        assert late.websocket.closed == (4000, "out")
        release_hold(never)
        assert never.websocket.sent == []
