"""Receipts behind every library's server: those that tell of pongs, and those that do not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from cluster_pool import ClusterPool, Connection, Delivery, SendResult
from cluster_pool.testing import FakeWebSocket
from cluster_pool.uvicorn import CompressingProtocol, Protocol
from tests.clusters import Backend, Pool
from tests.frame_client import CLOSE, PING, PONG, TEXT, FrameClient
from tests.support import async_test, eventually
from tests.transports import served as uvicorns
from tests.transports.served import QUIET

pytestmark = QUIET
RECEIVED, TIMED_OUT = SendResult.RECEIVED, SendResult.TIMED_OUT
LONG = 60.0


async def body(connection: Connection) -> None:
    """Echo, until the connection is closed."""
    async for message in connection:
        await connection.send(message)


@contextlib.asynccontextmanager
async def websockets(pool: Pool, user: str | None = None, **options: Any) -> AsyncIterator[str]:
    async def handler(websocket: ServerConnection) -> None:
        async with pool.accept(websocket, namespace="n", id="c", user=user) as connection:
            await body(connection)

    async with serve(handler, "127.0.0.1", 0, **options) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}/"


@contextlib.asynccontextmanager
async def uvicorn(pool: Pool, ws: Any = Protocol) -> AsyncIterator[str]:
    app = FastAPI()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket) -> None:
        async with pool.accept(websocket, namespace="n", id="c") as connection:
            await body(connection)

    async with uvicorns.served(app, ws) as url:
        yield f"{url}/"


@contextlib.asynccontextmanager
async def aiohttp(pool: Pool, **options: Any) -> AsyncIterator[str]:
    async def endpoint(request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse(**options)
        async with pool.accept((request, websocket), namespace="n", id="c") as connection:
            await body(connection)
        return websocket

    app = web.Application()
    app.router.add_get("/", endpoint)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}/"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def two(server: Any, **options: Any) -> AsyncIterator[tuple[str, Pool, Pool]]:
    """The URL of a server with the pool of the owner, and the pool of another node."""
    async with Backend(None).pools() as (owner, other), server(owner, **options) as url:
        yield url, owner, other


async def joined(owner: ClusterPool) -> None:
    await eventually(lambda: owner.get_connection("n", "c"))


SERVERS = pytest.mark.parametrize(
    ("server", "options"),
    [
        (websockets, {"compression": None}),
        (websockets, {"compression": "deflate"}),
        (uvicorn, {}),
        (uvicorn, {"ws": CompressingProtocol}),
        (aiohttp, {"compress": False}),
        (aiohttp, {"compress": True}),
        (aiohttp, {"autoping": False}),
    ],
)


@SERVERS
@async_test
async def test_plain_client_receives(server: Any, options: dict[str, Any]) -> None:
    """From its own node and from another; its messages and pings are answered as before."""
    async with two(server, **options) as (url, owner, other), connect(url) as client:
        await joined(owner)
        for sender in (owner, other):
            for message in ("x" * 10, b"y" * 70_000):
                assert await sender.send("n", "c", message, confirm="client") is RECEIVED
                assert await client.recv() == message
        await client.send("echo")
        assert await client.recv() == "echo"
        if options.get("autoping", True):
            await (await client.ping(b"theirs"))


@SERVERS
@async_test
async def test_only_the_right_pong_counts(server: Any, options: dict[str, Any]) -> None:
    """The ping stands behind the messages, and garbage is no answer."""
    options = options | ({"compression": None} if server is websockets else {})
    async with two(server, **options) as (url, owner, other), FrameClient.connect(url) as client:
        await joined(owner)
        sends = [
            asyncio.create_task(other.send("n", "c", text, confirm="client", timeout=LONG))
            for text in "abc"
        ]
        texts: list[bytes] = []
        while (frame := await client.next())[0] == TEXT or len(texts) < 3:
            texts += [frame[1]] if frame[0] == TEXT else []
        assert texts == [b"a", b"b", b"c"]
        kind, payload = frame
        assert kind == PING
        client.send(PONG)
        client.send(PONG, payload[::-1])
        client.send(TEXT, b"echo")
        assert await client.next() == (TEXT, b"echo")
        assert not any(one.done() for one in sends)
        client.send(PONG, payload)
        assert set(await asyncio.gather(*sends)) == {RECEIVED}


@SERVERS
@async_test
async def test_client_that_leaves_has_perhaps_not_received(
    server: Any, options: dict[str, Any]
) -> None:
    """By a Close of its own, the end of the stream, or a reset."""
    for leave in ("close", "end", "reset"):
        async with (
            two(server, **options) as (url, owner, other),
            FrameClient.connect(url) as client,
        ):
            await joined(owner)
            sent = asyncio.create_task(other.send("n", "c", "m", confirm="client", timeout=LONG))
            await client.until(PING)
            if leave == "close":
                client.send(CLOSE, (1000).to_bytes(2))
            elif leave == "end":
                client.end()
            else:
                client.reset()
            assert await sent is TIMED_OUT


@pytest.mark.parametrize(("server", "options"), [(websockets, {}), (uvicorn, {})])
@async_test
async def test_close_goes_behind_the_ping(server: Any, options: dict[str, Any]) -> None:
    """A client that answers both has received, whatever code it answers."""
    async with two(server, **options) as (url, owner, other), FrameClient.connect(url) as client:
        await joined(owner)
        sent = asyncio.create_task(
            other.send_then_close("n", "c", "bye", 4000, confirm="client", timeout=LONG)
        )
        client.send(PONG, await client.until(PING))
        await client.until(CLOSE)
        client.send(CLOSE, (1000).to_bytes(2))
        assert await sent is RECEIVED


@async_test
async def test_aiohttp_drops_what_comes_behind_its_close() -> None:
    """Then it is not known; a Pong that comes before counts."""
    async with two(aiohttp) as (url, owner, other), FrameClient.connect(url) as client:
        await joined(owner)
        first = asyncio.create_task(other.send("n", "c", "m", confirm="client", timeout=LONG))
        client.send(PONG, await client.until(PING))
        assert await first is RECEIVED
        last = asyncio.create_task(
            other.send_then_close("n", "c", "bye", 4000, confirm="client", timeout=LONG)
        )
        client.send(PONG, await client.until(PING))
        client.send(CLOSE, await client.until(CLOSE))
        assert await last is TIMED_OUT


@pytest.mark.parametrize("ws", ["websockets-sansio", "wsproto"])
@async_test
async def test_asgi_keeps_pongs_to_itself(ws: str) -> None:
    """Then a send is delivered, and no more is known."""
    async with two(uvicorn, ws=ws) as (url, owner, other), connect(url) as client:
        await joined(owner)
        for sender in (owner, other):
            sent = await sender.send("n", "c", "m", confirm="client")
            assert sent is SendResult.DELIVERED
            assert await client.recv() == "m"


@async_test
async def test_callables_have_no_pongs() -> None:
    """A pair of callables cannot be asked."""
    async with Backend(None).pools() as (owner, other):
        websocket: FakeWebSocket = await owner.host("n", "c")
        sent = await other.send("n", "c", "m", confirm="client")
        assert sent is SendResult.DELIVERED
        assert await websocket.wait_sent() == ["m"]


@async_test
async def test_users_are_received_in_a_cluster_with_a_secret() -> None:
    """Each connection of a user is counted by itself: those with pongs, and those without."""
    async with (
        Backend(None).pools(secret="a secret of a cluster") as (owner, other),
        websockets(owner, user="42") as url,
        connect(url) as client,
    ):
        await joined(owner)
        fake = Connection("d", "n", FakeWebSocket(), user="42")
        await owner.new_connection(fake)
        told = await other.send_user("42", "m", confirm="client")
        assert told == Delivery(received=1, delivered=1)
        assert await client.recv() == "m"
