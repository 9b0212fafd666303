"""The body of ``accept``: how it learns that its connection is over, and what never cancels it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from fakeredis import FakeAsyncRedis, FakeServer
from starlette.exceptions import HTTPException
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from cluster_pool import (
    AlreadyReadError,
    ClusterPool,
    ClusterPoolError,
    Connection,
    ConnectionClosedError,
    ConnectionsPool,
    IdTakenError,
    InvalidIdError,
    Limits,
    NotAcceptedError,
    PoolClosedError,
    SendResult,
)
from cluster_pool.local.closing import client_left
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool
from tests.stubborn import stubborn
from tests.support import async_test, eventually

Body = Callable[[Connection, Any], Awaitable[object]]
SHORT = replace(FAST, close=0.3, handler=0.6)


class Asgi:
    """A client as an ASGI server tells of it, and the task of its endpoint."""

    def __init__(
        self, pool: ClusterPool, body: Body, *, id: str = "a", opens: bool = False
    ) -> None:
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.events.put_nowait({"type": "websocket.connect"})
        self.sent: list[dict[str, Any]] = []
        scope = {"type": "websocket", "headers": [], "path": "/", "subprotocols": []}
        self.websocket = WebSocket(scope, self.events.get, self._send)
        self.behind = False
        self._opens = opens
        self.task = asyncio.create_task(self._run(pool, body, id))

    async def _send(self, event: Any) -> None:
        self.sent.append(event)

    async def _run(self, pool: ClusterPool, body: Body, id: str) -> None:
        if self._opens:
            await self.websocket.accept()
        async with pool.accept(self.websocket, namespace="n", id=id) as connection:
            await body(connection, self.websocket)
        self.behind = True

    def say(self, text: str) -> None:
        self.events.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self, code: int = 1001) -> None:
        self.events.put_nowait({"type": "websocket.disconnect", "code": code})

    async def begun(self) -> "Asgi":
        await eventually(lambda: any(one["type"] == "websocket.accept" for one in self.sent))
        await asyncio.sleep(0.02)
        return self


@contextlib.asynccontextmanager
async def one_pool(**options: Any) -> AsyncIterator[Pool]:
    """A node on its own."""
    async with Backend(None).pools(1, **{"timing": SHORT, **options}) as (pool,):
        yield pool
        await eventually(lambda: pool.statistics()["connections"] == 0)


async def waits(connection: Connection, websocket: Any) -> None:
    await asyncio.Event().wait()


async def pushes(connection: Connection, websocket: Any) -> None:
    while True:
        await connection.send("tick")
        await asyncio.sleep(0.01)


async def grouped(connection: Connection, websocket: Any) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(pushes(connection, websocket))
        group.create_task(waits(connection, websocket))


@pytest.mark.parametrize("body", [waits, pushes, grouped])
@async_test
async def test_a_body_that_does_not_read_ends_when_its_client_leaves(body: Body) -> None:
    """Nothing is raised, and the code behind the context runs."""
    async with one_pool() as pool:
        client = await Asgi(pool, body).begun()
        client.leave()
        await asyncio.wait_for(client.task, 3)
        assert client.behind


@async_test
async def test_a_body_that_sends_without_a_pause_ends_as_a_slow_consumer() -> None:
    """It fills its outbox in one turn, and is closed as a slow consumer."""

    async def body(connection: Connection, websocket: Any) -> None:
        while True:
            await connection.send("x" * 1000)

    async with one_pool() as pool:
        client = Asgi(pool, body)
        await asyncio.wait_for(client.task, 5)
        assert client.behind


@async_test
async def test_messages_that_came_before_the_departure_are_still_yielded() -> None:
    """Also to a body that begins to read late; one that does not read at all ends then."""
    got: list[object] = []

    async def late(connection: Connection, websocket: Any) -> None:
        await asyncio.sleep(0.1)
        got.extend([message async for message in connection])
        await asyncio.sleep(0.5)  # longer than it would have been given
        got.append("behind")

    async with one_pool() as pool:
        reading = await Asgi(pool, late, id="a").begun()
        waiting = await Asgi(pool, waits, id="b").begun()
        for client in (reading, waiting):
            client.say("one")
            client.say("two")
            client.leave()
        await asyncio.wait_for(asyncio.gather(reading.task, waiting.task), 5)
        assert got == ["one", "two", "behind"]


@async_test
async def test_a_body_that_handles_a_message_is_not_cancelled() -> None:
    """It is out of the pool at once all the same; the rest is yielded, then the iteration ends."""
    got: list[object] = []

    async def body(connection: Connection, websocket: Any) -> None:
        async for message in connection:
            await asyncio.sleep(1.0)  # longer than Timing.handler
            got.append(message)
        await asyncio.sleep(0.1)
        got.append("behind")

    async with one_pool() as pool:
        client = await Asgi(pool, body).begun()
        client.say("one")
        client.say("two")
        client.leave()
        await eventually(lambda: not pool.has_namespace("n"), 0.9)
        assert got == []
        await client.task
        assert got == ["one", "two", "behind"]


@pytest.mark.parametrize("before", [True, False])
@async_test
async def test_a_body_that_left_its_iteration_ends(before: bool) -> None:
    """Its client leaves before it stops reading, or after that."""

    async def body(connection: Connection, websocket: Any) -> None:
        async for _ in connection:
            if before:
                client.leave()
                await asyncio.sleep(0.05)
            break
        await asyncio.Event().wait()

    async with one_pool() as pool:
        client = await Asgi(pool, body).begun()
        client.say("one")
        await asyncio.sleep(0.05)
        if not before:
            client.leave()
        await asyncio.wait_for(client.task, 3)
        assert client.behind


@async_test
async def test_the_websocket_can_be_read_by_its_own_means() -> None:
    """Messages read ahead come in order; a body that waits elsewhere ends after Timing.handler."""
    got: list[str] = []

    async def body(connection: Connection, websocket: WebSocket) -> None:
        await asyncio.sleep(0.05)
        got.extend([await websocket.receive_text() for _ in range(3)])
        await asyncio.Event().wait()

    async with one_pool() as pool:
        client = await Asgi(pool, body).begun()
        for text in ("1", "2", "3"):
            client.say(text)
        await eventually(lambda: len(got) == 3)
        client.leave()
        await eventually(lambda: not pool.has_namespace("n"))
        assert not client.task.done()
        await asyncio.wait_for(client.task, 3)
        assert got == ["1", "2", "3"]


@async_test
async def test_an_outside_cancellation_is_never_swallowed() -> None:
    """Alone, in the turn of the departure before or behind it, and after it."""
    async with one_pool() as pool:
        for order in ("alone", "before", "behind", "same turn"):
            client = await Asgi(pool, waits).begun()
            if order != "alone":
                client.leave()
            if order == "before":
                client.task.cancel()
            elif order == "behind":
                await eventually(lambda: not pool.has_namespace("n"))
            elif order == "same turn":
                connection = pool.get_connection("n", "a")
                assert connection is not None
                client_left(connection, 1001, "")
            client.task.cancel()
            results = await asyncio.gather(client.task, return_exceptions=True)
            if order != "behind":  # there it may have ended by itself already
                assert isinstance(results[0], asyncio.CancelledError)


@async_test
async def test_timeouts_around_the_context_and_inside_the_body_still_work() -> None:
    """They cancel the task, too, and tell their own cancellation from ours."""
    async with one_pool() as pool:
        inner: list[bool] = []

        async def body(connection: Connection, websocket: Any) -> None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.05):
                    await asyncio.Event().wait()
            inner.append(True)
            async with asyncio.timeout(10):
                await asyncio.Event().wait()

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await Asgi(pool, body).task
        client = await Asgi(pool, body).begun()
        await eventually(lambda: len(inner) == 2)
        client.leave()
        await client.task
        assert client.behind


@async_test
async def test_a_body_that_swallows_the_cancellation_goes_on() -> None:
    """The cancellation may be caught, as with asyncio.timeout; the next send raises an error."""
    raised: list[BaseException] = []

    async def body(connection: Connection, websocket: Any) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.sleep(0.05)
        try:
            await connection.send("late")
        except ConnectionClosedError as error:
            raised.append(error)

    async with one_pool() as pool:
        client = await Asgi(pool, body).begun()
        client.leave(3001)
        await client.task
        assert client.behind
        assert client.task.cancelling() == 0
        assert [error.code for error in raised] == [3001]  # type: ignore[attr-defined]


@async_test
async def test_a_body_that_takes_every_error_does_not_hold_up_the_loop() -> None:
    """It sends again and again inside its iteration, where it is never cancelled."""
    errors, stop = 0, asyncio.Event()

    async def body(connection: Connection, websocket: Any) -> None:
        nonlocal errors
        async for _ in connection:
            while not stop.is_set():
                try:
                    await connection.send("tick")
                except Exception:
                    errors += 1
                    if errors > 1_000_000:
                        raise AssertionError("nobody else has run") from None

    async with one_pool() as pool:
        client = await Asgi(pool, body).begun()
        client.say("begin")
        client.leave()
        await eventually(lambda: errors > 100)
        stop.set()
        await client.task
        assert client.behind


@pytest.mark.parametrize("stays", [True, False])
@async_test
async def test_a_body_that_overfills_its_own_outbox_ends_as_a_slow_consumer(
    stays: bool,
) -> None:
    """No cancellation reaches a body that returns by itself."""

    async def body(connection: Connection, websocket: Any) -> None:
        while await pool.send("n", "a", "x" * 100_000):
            pass
        if stays:
            await asyncio.Event().wait()

    async with one_pool() as pool:
        client = Asgi(pool, body)
        await asyncio.wait_for(client.task, 3)
        assert client.behind
        assert client.task.cancelling() == 0
        assert pool.statistics()["slow_consumers"] == 1
        assert client.sent[-1]["code"] == 1013


@async_test
async def test_two_contexts_on_one_socket_end_together() -> None:
    """Each releases its own member; the outer one is not ended twice."""
    async with one_pool() as pool:
        behind: list[str] = []

        async def body(connection: Connection, websocket: WebSocket) -> None:
            async with pool.accept(websocket, namespace="m", id="a") as second:
                assert await second.send("hello")
                await asyncio.Event().wait()
            behind.append("inner")
            await asyncio.Event().wait()

        client = await Asgi(pool, body).begun()
        await eventually(lambda: pool.has_namespace("m"))
        client.leave()
        await asyncio.wait_for(client.task, 3)
        assert client.behind
        assert not pool.has_namespace("m")
        assert client.task.cancelling() == 0


@async_test
async def test_a_body_that_reads_in_an_inner_context_is_not_cancelled_by_the_outer_one() -> None:
    """Messages that had come are yielded, the code after the loop runs, then the outer one ends."""
    got: list[str] = []

    async with one_pool() as pool:

        async def body(connection: Connection, websocket: WebSocket) -> None:
            async with pool.accept(websocket, namespace="m", id="a") as second:
                async for message in second:
                    await asyncio.sleep(SHORT.close / 2)
                    got.append(str(message))
                await asyncio.sleep(SHORT.close / 2)
                got.append("behind the loop")
            got.append("behind the inner one")
            await asyncio.Event().wait()

        client = await Asgi(pool, body).begun()
        await eventually(lambda: pool.has_namespace("m"))
        for text in ("1", "2", "3"):
            client.say(text)
        client.leave()
        await asyncio.wait_for(client.task, 3)
        assert got == ["1", "2", "3", "behind the loop", "behind the inner one"]
        assert client.behind
        assert client.task.cancelling() == 0


@async_test
async def test_the_send_of_another_endpoint_is_refused_and_raises_nothing() -> None:
    """A departure ends the endpoint whose client it is, and no other."""
    async with one_pool() as pool:
        client = await Asgi(pool, waits, id="a").begun()
        other = pool.get_connection("n", "a")
        assert other is not None
        results: list[object] = []

        async def body(connection: Connection, websocket: Any) -> None:
            await connection.send("mine")
            results.append(await other.send("to another client"))

        client.leave()
        await client.task
        await Asgi(pool, body, id="b").task
        assert results == [SendResult.REFUSED]


@async_test
async def test_a_handler_that_sends_to_a_departed_client_is_no_fault() -> None:
    """It is neither logged nor counted."""

    async def body(connection: Connection, websocket: Any) -> None:
        connection.on("message", connection.send)
        await asyncio.sleep(0.1)
        await connection.run()

    async with one_pool() as pool:
        client = await Asgi(pool, body).begun()
        client.say("one")
        client.leave()
        await client.task
        assert pool.statistics()["handler_errors"] == 0


@async_test
async def test_close_handlers_hear_of_an_unread_departure() -> None:
    """Once, with the client's code."""
    told: list[tuple[int, str]] = []

    async def body(connection: Connection, websocket: Any) -> None:
        connection.on("close", lambda code, reason: told.append((code, reason)))
        await asyncio.Event().wait()

    async with one_pool() as pool:
        client = await Asgi(pool, body).begun()
        client.leave(3002)
        await client.task
        assert told == [(3002, "")]


@async_test
async def test_many_leave_at_once_while_ids_are_taken_over() -> None:
    """No task, no member and no endpoint is left."""
    async with one_pool() as pool:
        bodies: list[Body] = [waits, pushes, grouped]
        clients = [Asgi(pool, bodies[at % 3], id=str(at % 40)) for at in range(120)]
        await asyncio.sleep(0.1)
        for client in clients:
            client.leave()
        results = await asyncio.gather(
            *[asyncio.wait_for(client.task, 20) for client in clients], return_exceptions=True
        )
        for one in results:
            assert one is None or isinstance(one, ConnectionClosedError), one


@async_test
async def test_the_error_of_a_refused_accept_is_also_starlettes() -> None:
    """Our class and Starlette's both catch it, with attributes and text; the client is answered."""

    async def never(connection: Connection, websocket: Any) -> None:
        raise AssertionError("it is taken")

    async with one_pool(on_conflict="reject") as pool:
        client = await Asgi(pool, waits).begun()
        with pytest.raises(IdTakenError, match="id 'a' in namespace 'n' is taken") as taken:
            await Asgi(pool, never).task
        assert isinstance(taken.value, HTTPException)
        assert (taken.value.id, taken.value.status_code) == ("a", 409)
        other = Asgi(pool, never, id="{")
        with pytest.raises(InvalidIdError) as bad:
            await other.task
        assert isinstance(bad.value, HTTPException)
        assert bad.value.status_code == 400
        assert [event["type"] for event in other.sent] == ["websocket.close"]
        client.leave()
        await client.task


@async_test
async def test_a_reason_that_is_longer_than_a_close_can_carry_is_cut() -> None:
    """Where the WebSocket was open already, and for the library: no error of the protocol."""
    raised: list[BaseException] = []
    async with one_pool() as pool:

        async def handler(websocket: ServerConnection) -> None:
            try:
                async with pool.accept(websocket, namespace="n", id="{" * 100):
                    raise AssertionError("it is refused")
            except Exception as error:
                raised.append(error)

        async with serve(handler, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}") as client:
                await client.wait_closed()
                assert client.close_code == 1008
        one = Asgi(pool, waits, id="{" * 100, opens=True)
        with pytest.raises(InvalidIdError):
            await one.task
        assert isinstance(raised[0], InvalidIdError)
        assert (one.sent[-1]["code"], len(one.sent[-1]["reason"].encode())) == (1008, 123)


@async_test
async def test_accept_of_a_pool_that_was_never_started_warns_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The warning comes once, not for each client; a pool that was stopped refuses silently."""
    pool = ClusterPool(FakeAsyncRedis(server=FakeServer()))
    for lines in (["never started"], []):
        for _ in range(3):
            with pytest.raises(PoolClosedError):
                await Asgi(pool, waits).task
        assert ["never started" for line in caplog.messages if "never started" in line] == lines
        async with pool:
            pass
        caplog.clear()


@async_test
async def test_send_and_iteration_before_the_handshake_have_errors_of_their_own() -> None:
    """A send is not reported as delivered, and an iteration does not raise KeyError."""
    async with one_pool() as pool, ConnectionsPool() as local:
        scope = {"type": "websocket", "headers": [], "path": "/"}
        events: asyncio.Queue[Any] = asyncio.Queue()
        events.put_nowait({"type": "websocket.connect"})

        async def send(event: Any) -> None:
            raise AssertionError("nothing is sent")

        connection = Connection("a", "n", WebSocket(scope, events.get, send))
        for call in (
            *(connection.send("x"), connection.run(), anext(aiter(connection))),
            *(pool.new_connection(connection), local.new_connection(connection)),
        ):
            with pytest.raises(NotAcceptedError, match="accept"):
                await call
        assert not pool.has_namespace("n")
        assert not local.has_namespace("n")


@async_test
async def test_a_second_reader_has_an_error_of_its_own() -> None:
    """The first one goes on, and hears the end."""
    got: list[object] = []

    async def body(connection: Connection, websocket: WebSocket) -> None:
        first = asyncio.create_task(read(connection))
        await asyncio.sleep(0.02)
        with pytest.raises(AlreadyReadError):
            await connection.wait_closed()
        with pytest.raises(RuntimeError, match="another task"):
            await websocket.receive_text()
        await first

    async def read(connection: Connection) -> None:
        got.extend([message async for message in connection])

    async with one_pool() as pool:
        client = await Asgi(pool, body).begun()
        await asyncio.sleep(0.05)
        client.say("one")
        client.leave()
        await client.task
        assert got == ["one"]


@async_test
async def test_a_task_group_of_anyio_ends_with_its_client() -> None:
    """Its cancel scopes and our cancellation leave each other alone."""
    anyio = pytest.importorskip("anyio")

    async def body(connection: Connection, websocket: Any) -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(pushes, connection, websocket)
            group.start_soon(waits, connection, websocket)
            with anyio.move_on_after(0.02):
                await anyio.sleep(10)

    async with one_pool() as pool:
        client = await Asgi(pool, body).begun()
        client.leave()
        await asyncio.wait_for(client.task, 3)
        assert client.behind
        assert client.task.cancelling() == 0


# -- the library ``websockets`` ------------------------------------------------------------


@contextlib.asynccontextmanager
async def library(pool: Pool, body: Body, ended: list[str]) -> AsyncIterator[str]:
    """Its server, with one body for all."""

    async def handler(websocket: ServerConnection) -> None:
        with contextlib.suppress(ClusterPoolError):  # it left before the body began
            async with pool.accept(websocket, namespace="n", id="a") as connection:
                await body(connection, websocket)
        ended.append("ended")

    async with serve(handler, "127.0.0.1", 0, compression=None) as server:
        port = server.sockets[0].getsockname()[1]
        yield f"ws://127.0.0.1:{port}/"


@pytest.mark.parametrize("chatty", [False, True])
@pytest.mark.parametrize("body", [waits, pushes])
@async_test
async def test_the_library_tells_of_a_departure_at_once(body: Body, chatty: bool) -> None:
    """Also behind more messages than it queues before it stops reading; they are counted."""
    ended: list[str] = []
    few = Limits(inbound_bytes=20_000)
    async with one_pool(limits=few) as pool, library(pool, body, ended) as url:
        async with connect(url, compression=None) as client:
            await eventually(lambda: pool.has_namespace("n"))
            for _ in range(100 if chatty else 0):
                await client.send("x")
            if chatty:
                await eventually(lambda: pool.statistics()["inbound_dropped"] > 50)
        await eventually(lambda: ended, 3)


@async_test
async def test_the_library_reports_a_client_that_sends_a_close_and_stays() -> None:
    """Its socket stays open: no member at once, and cut after ``Timing.close``."""
    ended: list[str] = []
    async with one_pool() as pool, library(pool, waits, ended) as url, stubborn(url) as client:
        await eventually(lambda: pool.has_namespace("n"))
        client.writer.write(bytes((0x88, 0x82)) + bytes(4) + (1001).to_bytes(2, "big"))
        await eventually(lambda: not pool.has_namespace("n") and ended, 3)
        await eventually(lambda: client.ended, 5)


@async_test
async def test_the_library_can_be_read_late_and_by_its_own_means() -> None:
    """Messages that it kept come in order, then those that came after the dropped ones."""
    got: list[object] = []
    ended: list[str] = []
    begin = asyncio.Event()

    async def body(connection: Connection, websocket: ServerConnection) -> None:
        await begin.wait()
        got.append(await websocket.recv())
        async for message in connection:
            got.append(message)  # noqa: PERF401  # as they come

    few = Limits(inbound_bytes=15_000)
    async with one_pool(limits=few) as pool, library(pool, body, ended) as url:
        async with connect(url, compression=None) as client:
            for number in range(60):
                await client.send(str(number))
            await eventually(lambda: pool.statistics()["inbound_dropped"] > 20)
            begin.set()
            await eventually(lambda: len(got) > 10)
            await client.send("last")
            await eventually(lambda: "last" in got)
        await eventually(lambda: ended)
        kept = len(got) - 1
        assert got == [*[str(number) for number in range(kept)], "last"]
        assert kept + pool.statistics()["inbound_dropped"] == 60


@async_test
async def test_a_slow_reader_of_the_library_loses_nothing_and_keeps_no_ghost() -> None:
    """TCP holds its client up; nothing is dropped until it has read nothing for long."""
    got: list[object] = []
    ended: list[str] = []

    async def body(connection: Connection, websocket: Any) -> None:
        async for message in connection:
            got.append(message)
            await asyncio.sleep(0.3 if len(got) == 1 else 0)
            if len(got) == 101:
                break
        await asyncio.Event().wait()

    async with one_pool() as pool, library(pool, body, ended) as url:
        async with connect(url, compression=None) as client:
            for number in range(101):
                await client.send(str(number))
            await eventually(lambda: len(got) == 101)
            assert got == [str(number) for number in range(101)]
            assert pool.statistics()["inbound_dropped"] == 0
            for _ in range(60):
                await client.send("unread")
        await eventually(lambda: ended, 6)


@async_test
async def test_a_queue_of_the_library_that_is_full_again_is_read() -> None:
    """It is as long as at the last look, and of other messages: nothing is dropped."""
    got: list[object] = []
    ended: list[str] = []
    may_read = asyncio.Semaphore(0)

    async def body(connection: Connection, websocket: Any) -> None:
        async for message in connection:
            got.append(message)
            if len(got) in (1, 18):
                await may_read.acquire()

    options: dict[str, Any] = {
        "limits": Limits(inbound_bytes=2_000),
        "timing": replace(SHORT, handler=1.0),
    }
    async with one_pool(**options) as pool, library(pool, body, ended) as url:
        async with connect(url, compression=None) as client:
            for number in range(18):  # one is in the body's hands, and 17 are more than it queues
                await client.send(str(number))
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.3)
            may_read.release()
            for number in range(18, 35):
                await client.send(str(number))
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.6)
            for number in range(35, 60):
                await client.send(str(number))
            await asyncio.sleep(0.1)
            may_read.release()
            await eventually(lambda: len(got) == 60)
        await eventually(lambda: ended, 6)
        assert got == [str(number) for number in range(60)]
        assert pool.statistics()["inbound_dropped"] == 0
