"""Reading from a client: it ends at a kick, and goes on at the client's own close."""

import asyncio
from collections.abc import Callable

import pytest

from cluster_pool import (
    Connection,
    ConnectionsPool,
    Limits,
    Timing,
)
from cluster_pool.local.outbox import begin_close, kick
from cluster_pool.local.sweeper import look
from cluster_pool.testing import FakeWebSocket
from cluster_pool.transports.base import TransportClosed
from tests.support import async_test, eventually


class Mouth:
    """A client's messages, in place of a transport's ``receive``."""

    def __init__(self, connection: Connection) -> None:
        self.said: asyncio.Queue[str | None] = asyncio.Queue()
        self.waiting = False
        connection._transport.receive = self.receive  # type: ignore[method-assign]
        connection._transport.can_read = lambda: True  # type: ignore[method-assign]

    async def receive(self) -> str:
        self.waiting = True
        try:
            message = await self.said.get()
        finally:
            self.waiting = False
        if message is None:
            raise TransportClosed(1000)
        return message


class Pump:
    """A task that iterates over a connection, and its outcome."""

    def __init__(self, connection: Connection) -> None:
        self.mouth = Mouth(connection)
        self.got: list[object] = []
        self.at_ease = asyncio.Event()
        self.at_ease.set()
        self.left = False
        self.finished = False
        self.task = asyncio.create_task(self._run(connection))

    async def _run(self, connection: Connection) -> None:
        async for message in connection:
            self.got.append(message)
            await self.at_ease.wait()
        self.left = True
        await asyncio.sleep(0.01)
        self.finished = True

    async def begun(self) -> "Pump":
        await eventually(lambda: self.mouth.waiting)
        return self


async def iterate_for(seconds: float, connection: Connection) -> None:
    async with asyncio.timeout(seconds):
        async for _ in connection:
            pass
        await asyncio.sleep(10)


def connected(id: str = "1") -> Connection:
    return Connection(id, "n", FakeWebSocket())


Kick = Callable[[ConnectionsPool, Connection], object]


async def _take_over(pool: ConnectionsPool, connection: Connection) -> None:
    await pool.new_connection(connected(connection.id))


KICKS: dict[str, Kick] = {
    "taken over": _take_over,
    "close": lambda pool, one: pool.close("n", one.id, 4000, "out"),
    "close_all": lambda pool, one: pool.close_all("n", 4000, "out"),
    "send_then_close": lambda pool, one: pool.send_then_close("n", one.id, "out", 4000),
}


@pytest.mark.parametrize("how", KICKS)
@async_test
async def test_a_kick_ends_the_iteration_and_nothing_after_it(how: str) -> None:
    """Also one that waits for a message; the endpoint's later steps are not cancelled."""
    async with ConnectionsPool() as pool:
        connection = connected()
        closes: list[tuple[int, str]] = []
        connection.on("close", lambda code, reason: closes.append((code, reason)))
        await pool.new_connection(connection)
        pump = await Pump(connection).begun()
        pump.mouth.said.put_nowait("before")
        await eventually(lambda: pump.got)
        await pump.begun()
        await KICKS[how](pool, connection)  # type: ignore[misc]
        pump.mouth.said.put_nowait("after")
        await pump.task
        assert pump.got == ["before"]
        assert pump.finished
        assert pump.task.cancelling() == 0
        assert closes == [(connection.close_code, connection.close_reason)]
        assert closes[0][0] == (4409 if how == "taken over" else 4000)


@async_test
async def test_a_message_in_the_loop_body_is_handled_to_its_end() -> None:
    """The kick waits for the loop's body; messages received meanwhile are not yielded."""
    async with ConnectionsPool() as pool:
        connection = connected()
        await pool.new_connection(connection)
        pump = Pump(connection)
        pump.at_ease.clear()
        for number in range(5):
            pump.mouth.said.put_nowait(str(number))
        await eventually(lambda: pump.got)
        kick(connection, 4000, "")
        await asyncio.sleep(0.01)
        assert not pump.left
        pump.at_ease.set()
        await pump.task
        assert (pump.got, pump.finished) == (["0"], True)


@pytest.mark.parametrize("kick_first", [True, False])
@async_test
async def test_an_outside_cancellation_during_a_kick_is_not_swallowed(kick_first: bool) -> None:
    """Whichever came first, a task that other code cancels ends cancelled."""
    async with ConnectionsPool() as pool:
        connection = connected()
        await pool.new_connection(connection)
        pump = await Pump(connection).begun()
        steps = [lambda: kick(connection, 4000, ""), pump.task.cancel]
        for step in steps if kick_first else reversed(steps):
            step()
        with pytest.raises(asyncio.CancelledError):
            await pump.task
        assert not pump.left
        assert pump.task.cancelling() == 1


@async_test
async def test_a_timeout_around_the_iteration_still_works() -> None:
    """Its cancellation and the kick's are distinguished."""
    async with ConnectionsPool() as pool:
        connection = connected()
        await pool.new_connection(connection)
        Mouth(connection)
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, kick, connection, 4000, "")
        with pytest.raises(TimeoutError):
            await iterate_for(0.01, connection)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0


@async_test
async def test_a_kick_does_not_cancel_the_handling_of_a_library_error() -> None:
    """A task that handles an exception of ``receive`` does not iterate any more."""
    async with ConnectionsPool() as pool:
        connection = connected()
        await pool.new_connection(connection)

        async def broken() -> str:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "on purpose")

        connection._transport.receive = broken  # type: ignore[method-assign]
        with pytest.raises(UnicodeDecodeError):
            await connection.run()
        kick(connection, 4000, "")
        await asyncio.sleep(0.01)


@async_test
async def test_an_own_close_and_a_drain_still_read_the_client() -> None:
    """Until it answers, or is cut."""
    async with ConnectionsPool(timing=Timing(close=1.0)) as pool:
        pumps = []
        for id in ("own", "drained", "cut"):
            connection = connected(id)
            connection._transport.is_closed = lambda: False  # type: ignore[method-assign]
            await pool.new_connection(connection)
            pumps.append((connection, await Pump(connection).begun()))
        (own, _), (drained, _), (cut, cuts) = pumps
        begin_close(own, 1000, "")
        begin_close(drained, 1012, "draining", 5.0)
        begin_close(cut, 1000, "")
        for _, pump in pumps:
            pump.mouth.said.put_nowait("one thing more")
        await eventually(lambda: all(pump.got == ["one thing more"] for _, pump in pumps))
        look(cut, cut._deadline)
        cuts.mouth.said.put_nowait("and another")
        await cuts.task
        assert cuts.got == ["one thing more"]
        for _, pump in pumps[:2]:
            pump.mouth.said.put_nowait("the last")
            pump.mouth.said.put_nowait(None)
            await pump.task
            assert pump.got == ["one thing more", "the last"]


@async_test
async def test_handlers_get_nothing_after_a_kick() -> None:
    """Those of ``run`` and those that are fed follow the same rule."""
    async with ConnectionsPool() as pool:
        fed, ran = connected("fed"), connected("ran")
        got: list[object] = []
        for one in (fed, ran):
            one.on("message", got.append)
            await pool.new_connection(one)
        mouth = Mouth(ran)
        running = asyncio.create_task(ran.run())
        await eventually(lambda: mouth.waiting)
        await fed.feed("a")
        await pool.close_all("n")
        await fed.feed("b")
        mouth.said.put_nowait("c")
        await running
        assert got == ["a"]
        own = connected("own")
        own.on("message", got.append)
        await pool.new_connection(own)
        begin_close(own, 1000, "")
        await own.feed("d")
        assert got == ["a", "d"]


@async_test
async def test_a_client_above_its_message_rate_is_closed() -> None:
    """A second's messages may come at once; more end it with 1008, and are not handled."""
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
async def test_a_client_within_its_message_rate_stays() -> None:
    """The rate is an average: bursts within it are allowed."""
    async with ConnectionsPool(limits=Limits(inbound_per_second=1000)) as pool:
        connection = Connection("a", "n", FakeWebSocket())
        await pool.new_connection(connection)
        for _ in range(4):
            for _ in range(400):
                await connection.feed("x")
            await asyncio.sleep(0.5)
        assert not connection.closed
