"""Starlette and FastAPI behind our protocol of uvicorn, with real clients."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.middleware import Middleware
from websockets.asyncio.client import connect

from cluster_pool import ClusterPool, Connection
from cluster_pool.testing import FAST
from cluster_pool.transports.frames import FrameWriter
from cluster_pool.transports.starlette import StarletteTransport
from cluster_pool.transports.starlette_uvicorn import Logged, UvicornTransport
from cluster_pool.uvicorn import Protocol
from tests.clusters import Backend
from tests.support import async_test, eventually
from tests.transports.served import QUIET, served
from tests.transports.test_wrappers import Counting

pytestmark = QUIET

Body = Callable[[Connection, WebSocket], Any]


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
