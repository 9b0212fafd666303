"""Starlette and FastAPI behind our protocol of uvicorn, with real clients."""

import asyncio
import contextlib
import gc
import logging
import random
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from fastapi import FastAPI, Response, WebSocket
from starlette.middleware import Middleware
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cluster_pool import ClusterPool, Connection, Limits, SendResult, Timing
from cluster_pool.testing import FAST
from cluster_pool.transports.asgi_servers import EXTENSION
from cluster_pool.transports.frames import FrameWriter
from cluster_pool.transports.starlette import StarletteTransport
from cluster_pool.transports.starlette_uvicorn import Logged, UvicornTransport
from cluster_pool.transports.uvicorn import DirectProtocol
from cluster_pool.uvicorn import Protocol
from tests.clusters import Backend
from tests.stubborn import stubborn
from tests.support import async_test, eventually
from tests.transports.frames import CLOSE, PING, TEXT, read_messages
from tests.transports.served import QUIET, served
from tests.transports.test_wrappers import Counting

pytestmark = QUIET

Body = Callable[[Connection, WebSocket], Any]
PATIENT = replace(FAST, close=30.0, outbox_age=30.0)
CLOSED = b"\x88\x06\x0f\xa0done"
"""A close frame with 4000 and a reason."""


async def reads(connection: Connection, websocket: WebSocket) -> None:
    """A body that reads to the end."""
    async for _ in connection:
        pass


@contextlib.asynccontextmanager
async def behind_it(
    body: Body = reads, *middleware: Any, **options: Any
) -> AsyncIterator[tuple[ClusterPool, str, dict[str, Connection]]]:
    """A pool, the URL of its application, and its connections by id."""
    found: dict[str, Connection] = {}
    timing = options.pop("timing", FAST)
    async with Backend(None).pools(timing=timing, **options) as (pool, _):
        app = FastAPI(middleware=[Middleware(one) for one in middleware])

        @app.websocket("/{id}")
        async def endpoint(websocket: WebSocket, id: str) -> None:
            async with pool.accept(websocket, namespace="n", id=id) as connection:
                found[id] = connection
                await body(connection, websocket)

        async with served(app, Protocol) as url:
            yield pool, url, found


@async_test
async def test_a_broadcast_goes_past_asgi(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each delivery is one look-up of a descriptor, and no event of ASGI."""
    events: list[str] = []
    given: list[int] = []
    send, descriptor = Protocol.send, FrameWriter.descriptor

    async def recorded(self: Any, message: Any) -> None:
        events.append(message["type"])
        await send(self, message)

    def counted(self: Any) -> int:
        given.append(descriptor(self))
        return given[-1]

    async with (
        behind_it() as (pool, url, found),
        connect(f"{url}/a") as a,
        connect(f"{url}/b") as b,
    ):
        await eventually(lambda: len(found) == 2)
        monkeypatch.setattr(Protocol, "send", recorded)
        monkeypatch.setattr(FrameWriter, "descriptor", counted)
        for number in range(10):
            await pool.broadcast_message("n", str(number))
            assert await a.recv() == await b.recv() == str(number)
        assert events == []
        assert len(given) == 20
        assert min(given) > 0


@async_test
async def test_a_middleware_that_wraps_send_gets_every_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The direct way would pass it by, so the ordinary one is taken, and the log says so once."""
    Logged.wrappers.clear()
    caplog.set_level(logging.INFO, "cluster_pool.transports")
    async with (
        behind_it(reads, Counting) as (pool, url, found),
        connect(f"{url}/a") as a,
        connect(f"{url}/b"),
    ):
        await eventually(lambda: len(found) == 2)
        assert {type(one._transport) for one in found.values()} == {StarletteTransport}
        await pool.broadcast_message("n", "hello")
        assert await a.recv() == "hello"
    (line,) = [one.getMessage() for one in caplog.records if "wraps" in one.getMessage()]
    assert "Counting.__call__.<locals>.counted" in line


@async_test
async def test_a_middleware_that_wraps_receive_gets_every_message() -> None:
    """Its messages still go the direct way."""
    seen: list[str] = []

    class Reading:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def recorded() -> Any:
                event = await receive()
                seen.append(event["type"])
                return event

            await self.app(scope, recorded, send)

    async def echoes(connection: Connection, websocket: WebSocket) -> None:
        async for message in connection:
            await connection.send(message)

    async with behind_it(echoes, Reading) as (_, url, found):
        async with connect(f"{url}/a") as a:
            await a.send("hello")
            assert await a.recv() == "hello"
            assert isinstance(found["a"]._transport, UvicornTransport)
        await eventually(lambda: "websocket.disconnect" in seen)
    assert seen == ["websocket.connect", "websocket.receive", "websocket.disconnect"]


@async_test
async def test_the_frameworks_own_sends_keep_their_place_beside_the_pools() -> None:
    """A message of the pool that waits for the end of the tick goes first."""

    async def mixes(connection: Connection, websocket: WebSocket) -> None:
        for number in range(0, 300, 3):
            await connection.send(str(number))
            await websocket.send_text(str(number + 1))
            await connection.send(str(number + 2))
            if number % 5 == 0:
                await asyncio.sleep(0)

    async with behind_it(mixes) as (_, url, _), connect(f"{url}/a") as a:
        assert [int(await a.recv()) for _ in range(300)] == list(range(300))


@async_test
async def test_a_close_waits_for_the_answer_of_the_client() -> None:
    """As in ``serve``; the endpoint's own sends are refused by Starlette meanwhile."""
    refused: list[type[BaseException]] = []

    async def closes(connection: Connection, websocket: WebSocket) -> None:
        await connection.send("last")
        await connection.close(4321, "done")
        assert connection._transport.is_closed()
        try:
            await websocket.send_text("late")
        except RuntimeError as error:
            refused.append(type(error))

    async with behind_it(closes) as (pool, url, _), connect(f"{url}/a") as a:
        assert await a.recv() == "last"
        await a.wait_closed()
        assert (a.close_code, a.close_reason) == (4321, "done")
        await eventually(lambda: refused)
        assert pool.statistics()["forced_closes"] == 0


@async_test
async def test_frames_of_all_senders_are_whole_and_in_the_order_of_each() -> None:
    """A task that uses both ways, others beside it, and a client that reads in fits and starts."""
    count, sizes = 100, (0, 1, 125, 126, 5_000, 65_535, 65_536, 100_000)
    chance = random.Random(7)

    async def sends(source: str, *ways: Callable[[str], Any]) -> None:
        for number in range(count):
            text = f"{source}{number:04}".ljust(chance.choice(sizes), ".")
            await chance.choice(ways)(text)
            if chance.random() < 0.3:
                await asyncio.sleep(0)

    async def mixes(connection: Connection, websocket: WebSocket) -> None:
        await asyncio.gather(
            sends("a", connection.send, websocket.send_text),
            sends("b", websocket.send_text),
            sends("c", connection.send),
            sends("d", partial(pool.broadcast_message, "n")),
            sends("e", partial(pool.send, "n", "raw")),
        )
        await connection.close(4000, "done")

    limits = Limits(outbox_bytes=2**27)
    async with behind_it(mixes, limits=limits, timing=PATIENT) as (pool, url, _):
        async with stubborn(f"{url}/raw", reads=False) as client:
            tcp: Any = client.writer.transport
            while not client.heard.endswith(CLOSED):
                (tcp.resume_reading if chance.random() < 0.7 else tcp.pause_reading)()
                await asyncio.sleep(0.001)
        messages = list(read_messages(client.heard))
    assert messages.pop() == (CLOSE, CLOSED[2:])
    by_source: dict[str, list[int]] = {}
    for opcode, payload in messages:
        if opcode == PING:
            continue
        assert opcode == TEXT
        by_source.setdefault(payload[:1].decode(), []).append(int(payload[1:5]))
    assert by_source == {source: list(range(count)) for source in "abcde"}


@async_test
async def test_a_close_by_the_frameworks_own_method_ends_the_membership() -> None:
    """The client gets the code, and later sends are refused."""
    told: list[int | None] = []

    async def closes(connection: Connection, websocket: WebSocket) -> None:
        await connection.send("last")
        await websocket.close(4002, "own")
        told.append(connection.close_code)
        assert await pool.send("n", "a", "late") is not SendResult.DELIVERED

    async with behind_it(closes) as (pool, url, _), connect(f"{url}/a") as a:
        assert await a.recv() == "last"
        await a.wait_closed()
        assert (a.close_code, a.close_reason) == (4002, "own")
        await eventually(lambda: not pool.has_namespace("n"))
    assert told == [4002]


@async_test
async def test_a_client_that_is_refused_after_the_accept_gets_a_close() -> None:
    """The endpoint has answered the handshake itself before the pool looked at the id."""

    async with Backend(None).pools(on_conflict="reject") as (pool, _):
        app = FastAPI()

        @app.websocket("/{id}")
        async def endpoint(websocket: WebSocket, id: str) -> None:
            await websocket.accept()
            async with pool.accept(websocket, namespace="n", id=id) as connection:
                assert isinstance(connection._transport, UvicornTransport)
                await connection.wait_closed()

        async with served(app, Protocol) as url, connect(f"{url}/a"):
            await eventually(lambda: pool.has_namespace("n"))
            async with connect(f"{url}/a") as second:
                await second.wait_closed()
                assert second.close_code == 4409


@async_test
async def test_a_stop_of_uvicorn_writes_what_was_sent_in_this_tick() -> None:
    """Then comes uvicorn's own close."""

    async def stops(connection: Connection, websocket: WebSocket) -> None:
        await connection.send("last")
        connection._transport._protocol.shutdown()  # type: ignore[attr-defined]
        await asyncio.sleep(5)

    async with behind_it(stops) as (_, url, _), connect(f"{url}/a") as a:
        assert await a.recv() == "last"
        await a.wait_closed()
        assert a.close_code == 1012


@async_test
async def test_a_client_that_answers_no_close_is_cut() -> None:
    """At the deadline, and its endpoint has ended. Before 0.53 uvicorn itself waits for nothing."""
    if "close_timer" not in DirectProtocol.__slots__:
        pytest.skip("this uvicorn closes the socket behind its close")
    async with (
        behind_it(timing=Timing(close=0.3)) as (pool, url, found),
        stubborn(f"{url}/a") as client,
    ):
        await eventually(lambda: found)
        await pool.close("n", "a", 4000)
        await client.told(4000)
        await eventually(lambda: client.ended)
        assert pool.statistics()["forced_closes"] == 1


@async_test
async def test_a_silent_client_gives_no_sign_of_life_and_a_living_one_does() -> None:
    """By pongs, or by messages alone."""
    async with behind_it() as (_, url, found), connect(f"{url}/a") as a:
        async with stubborn(f"{url}/b") as silent:
            await eventually(lambda: len(found) == 2)
            assert await found["a"]._transport.alive(0.4)
            assert not await found["b"]._transport.alive(0.2)
            asking = asyncio.create_task(found["b"]._transport.alive(0.4))
            await asyncio.sleep(0)
            silent.say("still here")
            assert await asking
        await a.close()
        await eventually(lambda: found["a"]._transport.is_closed())
        assert not await found["a"]._transport.alive(0.1)


@async_test
async def test_pings_of_all_clients_are_sent_and_a_silent_one_is_closed() -> None:
    """By uvicorn's options, from shared timers; a client that left is asked no more."""
    async with Backend(None).pools(timing=FAST) as (pool, _):
        app = FastAPI()

        @app.websocket("/{id}")
        async def endpoint(websocket: WebSocket, id: str) -> None:
            async with pool.accept(websocket, namespace="n", id=id) as connection:
                await connection.wait_closed()

        options = {"ws_ping_interval": 0.2, "ws_ping_timeout": 0.5}
        async with served(app, Protocol, **options) as url, connect(f"{url}/a"):
            async with connect(f"{url}/gone"):
                pass
            async with stubborn(f"{url}/silent") as silent:
                await silent.told(1011)
            await asyncio.sleep(0.5)
            assert pool.get_connection("n", "a") is not None
            assert pool.statistics()["connections"] == 1


@async_test
async def test_an_endpoint_that_reads_behind_its_context_is_told_of_the_end() -> None:
    """By the framework's own method; if it was told before, Starlette says so."""
    got: list[tuple[str, object]] = []

    async with Backend(None).pools(timing=FAST) as (pool, _):
        app = FastAPI()

        @app.websocket("/{id}")
        async def endpoint(websocket: WebSocket, id: str) -> None:
            async with pool.accept(websocket, namespace="n", id=id) as connection:
                if id == "leaves":
                    await connection.wait_closed()
            try:
                got.append((id, (await websocket.receive())["code"]))
            except RuntimeError as error:
                got.append((id, "once a disconnect" in str(error)))

        async with served(app, Protocol) as url:
            async with connect(f"{url}/stays") as stays:
                await stays.wait_closed()
            async with connect(f"{url}/leaves"):
                await eventually(lambda: pool.has_namespace("n"))
            await eventually(lambda: len(got) == 2)
    told = dict(got)
    assert told["leaves"] is True
    assert told["stays"] in (1000, 1005, 1006)  # our code, or one for a socket that is gone


@async_test
async def test_the_objects_of_a_connection_that_has_ended_are_freed_without_the_collector() -> None:
    """Closed by either side, lost, or refused; uvicorn's objects and those of the library, too."""
    refs: dict[str, list[weakref.ref[Any]]] = {}

    def freed(id: str) -> bool:
        return not any(ref() for ref in refs[id])

    async with Backend(None).pools(timing=FAST, on_conflict="reject") as (pool, _):
        app = FastAPI()

        @app.websocket("/{id}")
        async def endpoint(websocket: WebSocket, id: str) -> None:
            protocol: Any = websocket.scope["extensions"][EXTENSION]
            refs[id] = [weakref.ref(one) for one in (websocket, protocol, protocol.conn)]
            del protocol
            async with pool.accept(websocket, namespace="n", id=id) as connection:
                refs[id].append(weakref.ref(connection))
                await (asyncio.Event().wait() if id == "waits" else connection.wait_closed())

        gc.disable()
        try:
            async with served(app, Protocol) as url:
                for id in ("reads", "waits"):
                    async with connect(f"{url}/{id}", proxy=None) as client:
                        await client.send("hello")
                    await eventually(partial(freed, id), 5)
                async with connect(f"{url}/closed", proxy=None) as client:
                    await eventually(lambda: pool.has_namespace("n"))
                    await pool.close("n", "closed")
                    await client.wait_closed()
                await eventually(partial(freed, "closed"), 5)
                async with stubborn(f"{url}/lost"):
                    await eventually(lambda: pool.has_namespace("n"))
                await eventually(partial(freed, "lost"), 5)
                with pytest.raises(InvalidStatus):
                    await connect(f"{url}/a%7B", proxy=None)
                await eventually(partial(freed, "a{"), 5)
        finally:
            gc.enable()


@async_test
async def test_all_connections_of_a_websocket_write_before_uvicorn_does() -> None:
    """Two contexts of one WebSocket, and one that was made without a context."""

    async with Backend(None).pools(timing=FAST) as (pool, _):
        app = FastAPI()

        @app.websocket("/{id}")
        async def endpoint(websocket: WebSocket, id: str) -> None:
            async with (
                pool.accept(websocket, namespace="one", id=id) as one,
                pool.accept(websocket, namespace="two", id=id) as two,
            ):
                three = Connection(id, "three", websocket)
                await pool.new_connection(three)
                for connection, text in ((one, "a"), (two, "b"), (three, "c")):
                    await connection.send(text)
                await websocket.send_text("d")
                await one.wait_closed()
                await pool.remove_connection(three)

        async with served(app, Protocol) as url, connect(f"{url}/a", proxy=None) as client:
            assert [await client.recv() for _ in range(4)] == ["a", "b", "c", "d"]


@async_test
async def test_no_message_follows_a_close_of_another_connection_of_the_websocket() -> None:
    """Its client answers the Close in the turn in which the other connection is sent a message."""

    async with Backend(None).pools(timing=FAST) as (pool, _):
        app = FastAPI()

        @app.websocket("/{id}")
        async def endpoint(websocket: WebSocket, id: str) -> None:
            async with (
                pool.accept(websocket, namespace="one", id=id) as one,
                pool.accept(websocket, namespace="two", id=id) as two,
            ):
                closing = asyncio.create_task(one.close(4000, "done"))
                while not closing.done() and two._state.value == "open":
                    await two.send("late")
                    await asyncio.sleep(0)
                await closing

        async with served(app, Protocol) as url, stubborn(f"{url}/a") as client:
            await client.told(4000)
            client.writer.write(CLOSED[:1] + b"\x82" + bytes(4) + CLOSED[2:4])
            await eventually(lambda: client.ended)
            assert list(read_messages(client.heard))[-1] == (CLOSE, CLOSED[2:])


@async_test
async def test_an_answer_to_a_handshake_that_a_stop_has_refused_is_dropped() -> None:
    """Uvicorn answers 500 when it stops. The application denies it later, and nothing is raised."""
    app = FastAPI()
    answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @app.websocket("/late")
    async def endpoint(websocket: WebSocket) -> None:
        protocol: Any = websocket.scope["extensions"][EXTENSION]
        protocol.shutdown()
        try:
            await websocket.send_denial_response(Response(status_code=503))
        except BaseException as error:
            answered.set_result(repr(error))
        else:
            answered.set_result("")

    async with served(app, Protocol) as url:
        with pytest.raises(InvalidStatus, match="500"):
            await connect(f"{url}/late", proxy=None)
        assert await asyncio.wait_for(answered, 20) == ""
