"""A connection: its outbox, its handlers, its end."""

import asyncio
import logging
import re
from pathlib import Path

import pytest

from cluster_pool import (
    ClusterPoolError,
    Connection,
    ConnectionsPool,
    InvalidCloseError,
    InvalidIdError,
    InvalidMessageError,
    InvalidNamespaceError,
    InvalidValueError,
    Limits,
    MessageTooLargeError,
    SendResult,
    Timing,
)
from cluster_pool.core.message import Outgoing
from cluster_pool.local.closing import is_gone
from cluster_pool.local.handshake import hold, release_hold
from cluster_pool.local.outbox import deliver
from cluster_pool.testing import FakeWebSocket
from cluster_pool.transports.callables import SendAndClose
from tests.support import async_test, eventually

EMBEDDING = Path(__file__).parents[2] / "docs" / "embedding.md"


class StuckWebSocket(SendAndClose):
    """Takes the first message and never comes back."""

    def __init__(self) -> None:
        self.began = 0
        self.closed = False

    async def send(self, message: str | bytes) -> None:
        self.began += 1
        await asyncio.Event().wait()

    async def close(self, code: int, reason: str) -> None:
        self.closed = True


@async_test
async def test_works_without_a_pool() -> None:
    """A connection by itself sends, in order, and closes."""
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
async def test_bad_arguments_are_refused() -> None:
    """Ids, namespaces, sockets, codes, messages and times are checked where they come in."""
    socket = FakeWebSocket()
    for id, namespace, error in (
        ("", "n", InvalidIdError),
        ("a\x00", "n", InvalidIdError),
        (7, "n", InvalidIdError),
        ("a", "{", InvalidNamespaceError),
        ("a", "~", InvalidNamespaceError),
        ("a", "é" * 129, InvalidNamespaceError),
    ):
        with pytest.raises(error):
            Connection(id, namespace, socket)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="int is no WebSocket"):
        Connection("a", "n", 5)
    with pytest.raises(InvalidValueError):
        Connection("a", "n", socket, idle_timeout=0)
    connection = Connection("a", "n", socket)
    with pytest.raises(InvalidCloseError):
        await connection.close(1005)
    with pytest.raises(InvalidMessageError):
        await connection.send(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidMessageError):
        await connection.feed("\ud800")
    with pytest.raises(MessageTooLargeError) as caught:
        await connection.send("x" * (1024 * 1024 + 1))
    assert (caught.value.size, caught.value.limit) == (1024 * 1024 + 1, 1024 * 1024)
    with pytest.raises(InvalidValueError):
        connection.on("nonsense", print)


@async_test
async def test_what_one_tick_delivers_leaves_in_one_write() -> None:
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
    """The client that takes nothing is closed alone; what it was sent beyond is refused."""
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
    """A message larger than the outbox limit is fine when nothing is waiting."""
    async with ConnectionsPool(limits=Limits(outbox_bytes=10, message_bytes=1000)) as pool:
        connection = Connection("1", "n", FakeWebSocket())
        await pool.new_connection(connection)
        assert await connection.send("x" * 1000) is SendResult.DELIVERED


@async_test
async def test_bytes_that_do_not_move_are_cut_by_age() -> None:
    """A few unread bytes are enough, once they have waited too long."""
    timing = Timing(outbox_age=0.5, close=0.2)
    async with ConnectionsPool(timing=timing) as pool:
        connection = Connection("1", "n", StuckWebSocket())
        await pool.new_connection(connection)
        await connection.send("x")
        await eventually(lambda: is_gone(connection))
        assert connection.close_code == 1013


@async_test
async def test_an_idle_connection_is_closed_with_4408() -> None:
    """Only the one that asked for it, and only when it has said nothing."""
    async with ConnectionsPool() as pool:
        idle = Connection("idle", "n", FakeWebSocket(), idle_timeout=0.5)
        other = Connection("other", "n", FakeWebSocket())
        await pool.new_connection(idle)
        await pool.new_connection(other)
        assert (await idle.websocket.wait_closed())[0] == 4408
        assert not other.closed


@async_test
async def test_a_held_connection_gathers_and_then_delivers() -> None:
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


@async_test
async def test_an_exception_in_a_handler_stays_there(caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once with its connection, counted, told to the error handlers; life goes on."""
    async with ConnectionsPool() as pool:
        connection = Connection("a\u202eb", "n", FakeWebSocket())
        await pool.new_connection(connection)
        errors: list[Exception] = []
        seen: list[str | bytes] = []

        async def fail(message: str) -> None:
            raise RuntimeError("on purpose")

        connection.on("message", fail)
        connection.on("message", seen.append)
        connection.on("error", errors.append)
        with caplog.at_level(logging.ERROR, "cluster_pool"):
            await connection.feed("x")
        assert seen == ["x"]
        assert [str(error) for error in errors] == ["on purpose"]
        assert pool.statistics()["handler_errors"] == 1
        (record,) = caplog.records
        assert "a\\u202eb" in record.getMessage()
        assert not connection.closed


@async_test
async def test_a_handler_that_fails_for_ever_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The first exception has its traceback in the log; all of them are counted."""
    async with ConnectionsPool() as pool:
        connection = Connection("a", "n", FakeWebSocket())
        await pool.new_connection(connection)
        connection.on("message", lambda message: 1 / 0)
        with caplog.at_level(logging.ERROR, "cluster_pool"):
            for _ in range(100):
                await connection.feed("x")
        assert pool.statistics()["handler_errors"] == 100
        assert len(caplog.records) == 1


@async_test
async def test_a_handler_that_hangs_is_reported_once_and_holds_up_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Its own connection waits; sends to it and everybody else go on; the pool stops in time."""
    async with ConnectionsPool(timing=Timing(handler=0.5)) as pool:
        connection = Connection("a", "n", FakeWebSocket())
        other = Connection("b", "n", FakeWebSocket())
        for one in (connection, other):
            await pool.new_connection(one)
        for_ever = asyncio.Event()

        async def hang(message: str) -> None:
            await for_ever.wait()

        seen: list[str | bytes] = []
        connection.on("message", hang)
        other.on("message", seen.append)
        with caplog.at_level(logging.ERROR, "cluster_pool"):
            stuck = asyncio.create_task(connection.feed("x"))
            await eventually(lambda: pool.statistics()["handler_hangs"] == 1)
            await asyncio.sleep(1.1)  # another sweep
        assert pool.statistics()["handler_hangs"] == 1
        (record,) = caplog.records
        assert repr(connection) in record.getMessage()
        assert await pool.broadcast_message("n", "hi") == 2
        assert await connection.websocket.wait_sent() == ["hi"]
        await other.feed("y")
        assert seen == ["y"]
        for_ever.set()
        await stuck
        stuck = asyncio.create_task(connection.feed("x"))
    await stuck


@async_test
async def test_who_says_more_than_allowed_is_closed() -> None:
    """As many messages as a second may have can come at once; then 1008, and nothing is handled."""
    async with ConnectionsPool(limits=Limits(inbound_per_second=50)) as pool:
        websocket = FakeWebSocket()
        connection = Connection("a", "n", websocket)
        await pool.new_connection(connection)
        seen: list[str | bytes] = []
        connection.on("message", seen.append)
        for at in range(500):
            await connection.feed(str(at))
        assert 50 <= len(seen) < 200
        assert seen == [str(at) for at in range(len(seen))]
        assert (await websocket.wait_closed())[0] == 1008
        assert pool.statistics()["inbound_floods"] == 1


@async_test
async def test_who_says_as_much_as_allowed_stays() -> None:
    """The rate is an average: bursts within it close nobody."""
    async with ConnectionsPool(limits=Limits(inbound_per_second=1000)) as pool:
        connection = Connection("a", "n", FakeWebSocket())
        await pool.new_connection(connection)
        for _ in range(4):
            for _ in range(400):
                await connection.feed("x")
            await asyncio.sleep(0.5)
        assert not connection.closed


@async_test
async def test_close_handlers_fire_once_for_whoever_pumps() -> None:
    """``run`` ends when the connection does, and tells the code and the reason."""
    connection = Connection("1", "n", FakeWebSocket())
    told: list[tuple[int, str]] = []
    connection.on("close", lambda code, reason: told.append((code, reason)))
    pump = asyncio.create_task(connection.run())
    await connection.close(4000, "bye")
    await pump
    await connection.wait_closed()
    assert told == [(4000, "bye")]


@async_test
async def test_a_connection_belongs_to_one_pool() -> None:
    """It cannot be a member of two pools."""
    async with ConnectionsPool() as one, ConnectionsPool() as two:
        connection = Connection("1", "n", FakeWebSocket())
        await one.new_connection(connection)
        with pytest.raises(ClusterPoolError, match="another pool"):
            await two.new_connection(connection)


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


@async_test
async def test_a_storm_is_one_line_of_each_kind(caplog: pytest.LogCaptureFixture) -> None:
    """Many clients that break the same handler, or say too much: all counted, one line for each
    fault, the number of the others with the next."""
    pool = ConnectionsPool(limits=Limits(inbound_per_second=2))

    def fail(message: str) -> None:
        if message == "a":
            raise RuntimeError("on purpose")
        raise RuntimeError("at another line")

    async with pool:
        with caplog.at_level(logging.INFO, "cluster_pool"):
            for number in range(50):
                connection = Connection(str(number), "n", FakeWebSocket())
                connection.on("message", fail)
                await pool.new_connection(connection)
                for _ in range(5):
                    await connection.feed("b" if number == 49 else "a")
        statistics = pool.statistics()
        assert statistics["inbound_floods"] == 50
        assert statistics["handler_errors"] >= 50
        assert [record.levelname for record in caplog.records] == ["ERROR", "INFO", "ERROR"]


@async_test
async def test_a_connection_shows_what_the_documentation_lists() -> None:
    """What other floors need of it are functions of theirs, and no names of the user's."""
    (line,) = re.findall(r"^\| `Connection` \|.*$", EMBEDDING.read_text(), re.MULTILINE)
    listed = set(re.findall(r"`([a-z_]+)`", line))
    shown = {name for name in dir(Connection("1", "n", FakeWebSocket())) if name[0] != "_"}
    assert shown == listed
