"""The outbox: one write in a tick, order, limits in bytes and in age."""

import asyncio
from typing import Any

from cluster_pool import (
    Connection,
    ConnectionsPool,
    Limits,
    SendResult,
    Timing,
)
from cluster_pool.core.message import Outgoing
from cluster_pool.local.closing import is_gone
from cluster_pool.local.handshake import hold, release_hold
from cluster_pool.local.outbox import deliver, put_ahead
from cluster_pool.testing import FakeWebSocket
from cluster_pool.transports.callables import SendAndClose
from tests.support import async_test, eventually


class StuckWebSocket(SendAndClose):
    """Accepts the first message and never returns."""

    def __init__(self) -> None:
        self.began = 0
        self.closed = False

    async def send(self, message: str | bytes) -> None:
        self.began += 1
        await asyncio.Event().wait()

    async def close(self, code: int, reason: str) -> None:
        self.closed = True


@async_test
async def test_messages_of_one_tick_leave_in_one_write() -> None:
    """Messages of one tick reach the transport together, in order, joined and single alike."""
    async with ConnectionsPool() as pool:
        connection = Connection("1", "n", FakeWebSocket())
        await pool.new_connection(connection)
        writes: list[Outgoing] = []
        connection._transport.write = lambda one, written: len(writes.append(one) or "")  # type: ignore[method-assign,func-returns-value]
        parts = [Outgoing(True, b"b"), Outgoing(True, b"c")]
        deliver(connection, Outgoing(True, b"a"))
        deliver(connection, Outgoing.join(parts))
        deliver(connection, Outgoing(False, b"d"))
        assert writes == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert len(writes) == 1
        assert [part.payload for part in writes[0].parts] == [b"a", b"b", b"c", b"d"]
        assert pool.statistics()["delivered"] == 4


@async_test
async def test_a_full_outbox_closes_with_1013_and_cuts_at_the_deadline() -> None:
    """Only the client that reads nothing is closed; messages beyond the limit are refused."""
    limits, timing = Limits(outbox_bytes=1000), Timing(close=0.2)
    async with ConnectionsPool(limits=limits, timing=timing) as pool:
        stuck = Connection("stuck", "n", StuckWebSocket())
        fine = Connection("fine", "n", FakeWebSocket())
        await pool.new_connection(stuck)
        await pool.new_connection(fine)
        results = []
        for _ in range(5):
            results.append(await pool.send("n", "stuck", "x" * 400))
            await pool.send("n", "fine", "x" * 400)
            await asyncio.sleep(0)
        assert results[:2] == [SendResult.DELIVERED] * 2
        assert results[-1] in (SendResult.REFUSED, SendResult.ABSENT)
        assert stuck.close_code == 1013
        assert pool.statistics()["slow_consumers"] == 1
        await eventually(lambda: is_gone(stuck))
        assert pool.statistics()["forced_closes"] == 1
        assert len(await fine.websocket.wait_sent(5)) == 5
        assert not fine.closed


@async_test
async def test_an_empty_outbox_takes_any_permitted_message() -> None:
    """A message larger than the outbox limit is accepted when nothing else waits."""
    async with ConnectionsPool(limits=Limits(outbox_bytes=10, message_bytes=1000)) as pool:
        connection = Connection("1", "n", FakeWebSocket())
        await pool.new_connection(connection)
        assert await connection.send("x" * 1000) is SendResult.DELIVERED


@async_test
async def test_bytes_that_do_not_move_are_cut_by_age() -> None:
    """A few unread bytes are enough if they wait too long."""
    timing = Timing(outbox_age=0.5, close=0.2)
    async with ConnectionsPool(timing=timing) as pool:
        connection = Connection("1", "n", StuckWebSocket())
        await pool.new_connection(connection)
        await connection.send("x")
        await eventually(lambda: is_gone(connection))
        assert connection.close_code == 1013


def texts(connection: Connection) -> list[str]:
    """The messages that are held for a connection."""
    pending: Any = connection._pending or []
    return [part.payload.decode() for one in pending for part in one.parts]


async def held(pool: ConnectionsPool, *messages: str) -> Connection:
    """A member whose handshake is not answered, and what it is to get then."""
    connection = Connection("1", "n", FakeWebSocket())
    hold(connection)
    await pool.new_connection(connection)
    for message in messages:
        await connection.send(message)
    return connection


@async_test
async def test_earlier_messages_go_ahead_of_held_ones() -> None:
    """Those that are among them go; the newcomer gets the rest once, in order."""
    async with ConnectionsPool() as pool:
        one = await held(pool, "b", "c", "d")
        earlier = [Outgoing(True, text) for text in (b"a", b"b", b"c")]
        assert put_ahead(one, earlier, lambda message: message.payload in b"bc", whole=True)
        assert texts(one) == ["a", "b", "c", "d"]
        assert pool.statistics()["delivered"] == 4
        release_hold(one)
        assert await one.websocket.wait_sent(4) == ["a", "b", "c", "d"]
        assert not put_ahead(one, earlier, lambda message: False)


@async_test
async def test_more_than_fits_goes_ahead_in_part_or_not_at_all() -> None:
    """The newest fit first; a replay that must be whole changes nothing then."""
    async with ConnectionsPool(limits=Limits(outbox_bytes=5)) as pool:
        one = await held(pool, "d")
        earlier = [Outgoing(True, text) for text in (b"aa", b"bb", b"cc")]
        assert not put_ahead(one, earlier, lambda message: False, whole=True)
        assert texts(one) == ["d"]
        assert put_ahead(one, earlier, lambda message: False)
        assert texts(one) == ["bb", "cc", "d"]
        assert pool.statistics()["delivered"] == 3
