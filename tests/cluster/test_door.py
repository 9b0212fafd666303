"""The checks of ``accept`` before the claim, and an endpoint's view of its request.

Behind real servers: uvicorn with each of its WebSocket implementations, and ``websockets``.
"""

import asyncio
import contextlib
import json
import socket
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import InvalidStatus

from cluster_pool import ClusterPoolError, Connection, InvalidValueError, Request
from cluster_pool.testing import FakeWebSocket, fake_cluster
from tests.clusters import Backend, Pool
from tests.support import async_test, eventually
from tools.harness.nodes import close_code, in_thread

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # uvicorn's own imports
    pytest.mark.filterwarnings("ignore:The `websockets` implementation is deprecated"),
]

KINDS = ("websockets", "websockets-sansio", "wsproto")
HANDSHAKE = (
    "GET /alice HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@contextlib.asynccontextmanager
async def app_on_uvicorn(pool: Pool, kind: str, **options: Any) -> AsyncIterator[int]:
    """The README's endpoint behind uvicorn, which says what it sees of each request."""
    app = FastAPI()

    @app.websocket("/{id}")
    async def endpoint(websocket: WebSocket, id: str) -> None:
        with contextlib.suppress(ClusterPoolError):
            async with pool.accept(websocket, namespace="n", id=id, **options) as connection:
                await say(connection)

    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws=kind
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


async def say(connection: Connection) -> None:
    """Send what the endpoint sees of the request, for each message that comes."""
    async for _ in connection:
        asked = connection.request
        await connection.send_json(
            [
                *(asked.path, asked.query.get("token"), asked.headers.get_all("x-Twice")),
                *(asked.cookies, asked.client, asked.subprotocols),
            ]
        )


@contextlib.asynccontextmanager
async def app_on_websockets(pool: Pool, **options: Any) -> AsyncIterator[int]:
    """The same with the library alone."""

    async def handler(websocket: ServerConnection) -> None:
        assert websocket.request is not None
        id = websocket.request.path.strip("/").partition("?")[0]
        with contextlib.suppress(ClusterPoolError):
            async with pool.accept(websocket, namespace="n", id=id, **options) as connection:
                await say(connection)

    async with serve(handler, "127.0.0.1", 0) as server:
        yield next(iter(server.sockets)).getsockname()[1]


def ask(port: int, *lines: str) -> int:
    """The status of a handshake with these lines behind it."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
        text = HANDSHAKE + "".join(f"{line}\r\n" for line in lines) + "\r\n"
        client.sendall(text.encode("latin-1"))
        return int(client.recv(65536).split(b" ", 2)[1])


async def stays(alice: ClientConnection, pool: Pool) -> None:
    """Check that Alice is still a member."""
    assert await pool.send("n", "alice", "still?", confirm=True)
    assert await alice.recv() == "still?"
    assert pool.statistics()["taken_over"] == 0


@pytest.mark.parametrize("kind", KINDS)
@async_test
async def test_foreign_pages_and_broken_offers_take_no_id(kind: str) -> None:
    """403 and 400 before the claim, on each of uvicorn's implementations."""
    async with (
        Backend(None).pools(1) as (pool,),
        app_on_uvicorn(pool, kind) as port,
        connect(f"ws://127.0.0.1:{port}/alice") as alice,
    ):
        for origin in ("https://evil.example", "null", "http://a.example:8000", ""):
            assert await in_thread(ask, port, f"Origin: {origin}") == 403
        assert pool.statistics()["origins_refused"] == 4
        twice = ("Origin: http://a.example", "Origin: http://a.example")
        assert await in_thread(ask, port, *twice) in (400, 403)
        assert await in_thread(ask, port, "Sec-WebSocket-Protocol: @") == 400
        if kind != "wsproto":  # which takes the header out, and lets the client in
            assert await in_thread(ask, port, "Sec-WebSocket-Extensions: a; =") == 400
        await stays(alice, pool)
        assert await in_thread(ask, port, "Origin: https://a.example") == 101
        assert await close_code(alice) == 4409


@pytest.mark.parametrize("kind", KINDS)
@async_test
async def test_a_client_that_leaves_at_once_takes_no_id(kind: str) -> None:
    """The end of the stream, or a reset, arrives together with the request."""
    text = f"{HANDSHAKE}\r\n".encode()
    async with (
        Backend(None).pools(1) as (pool,),
        app_on_uvicorn(pool, kind) as port,
        connect(f"ws://127.0.0.1:{port}/alice") as alice,
    ):
        for reset in (False, True):
            for _ in range(10):  # in this thread: the server does not see one without the other
                with socket.create_connection(("127.0.0.1", port)) as client:
                    if reset:
                        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    client.sendall(text)
            async with connect(f"ws://127.0.0.1:{port}/bob"):  # claimed behind all of them
                await stays(alice, pool)
        assert pool.statistics()["accepted"] == 3


@async_test
async def test_a_subprotocol_that_was_not_offered_takes_no_id() -> None:
    """A client refuses such an answer, so the handshake would fail after the claim."""
    async with (
        Backend(None).pools(1) as (pool,),
        app_on_uvicorn(pool, "auto", subprotocol="v1") as port,
    ):
        url = f"ws://127.0.0.1:{port}/alice"
        async with connect(url, subprotocols=["v0", "v1"]) as alice:
            assert alice.subprotocol == "v1"
            for offers in (["v2"], None):
                with pytest.raises(InvalidStatus) as refused:
                    await connect(url, subprotocols=offers)
                assert refused.value.response.status_code == 400
            await stays(alice, pool)


@async_test
async def test_origins_may_be_named_for_the_pool_and_for_a_call() -> None:
    """Origins of the call replace those of the pool; the same origin is always allowed."""
    app, other = "https://app.example", "https://other.example"
    async with Backend(None).pools(1, origins=[app]) as (pool,):
        for options, allowed in (
            ({}, {app}),
            ({"origins": [other]}, {other}),
            ({"origins": []}, set()),
            ({"origins": ["*"]}, {app, other, "null"}),
        ):
            async with app_on_uvicorn(pool, "auto", **options) as port:
                for origin in (app, other, "null"):
                    expected = 101 if origin in allowed else 403
                    assert await in_thread(ask, port, f"Origin: {origin}") == expected
                assert await in_thread(ask, port, "Origin: http://a.example") == 101
    with pytest.raises(InvalidValueError, match=r"app\.example"):
        Pool(Backend(None).redis(), origins=["app.example"])


@async_test
async def test_behind_websockets_a_foreign_page_is_closed_with_1008() -> None:
    """The handshake has been answered there; it takes no id all the same."""
    async with Backend(None).pools(1) as (pool,), app_on_websockets(pool) as port:
        url = f"ws://127.0.0.1:{port}/alice"
        async with connect(url, origin=f"http://127.0.0.1:{port}") as alice:
            async with connect(url, origin="https://evil.example") as evil:
                assert await close_code(evil) == 1008
            await stays(alice, pool)
            assert pool.statistics()["origins_refused"] == 1


@pytest.mark.parametrize("kind", [*KINDS, None])
@async_test
async def test_an_endpoint_sees_the_request(kind: str | None) -> None:
    """Path, query, headers, cookies and address are the same with every library."""
    serving: Callable[..., Any] = app_on_websockets if kind is None else app_on_uvicorn
    arguments = () if kind is None else (kind,)
    async with (
        Backend(None).pools(1) as (pool,),
        serving(pool, *arguments) as port,
        connect(
            f"ws://127.0.0.1:{port}/al%20ice?token=%C3%BC",
            additional_headers=[
                *(("X-Twice", "1"), ("X-twice", "2"), ("Cookie", "a=1; b=2")),
                ("X-Forwarded-For", "6.6.6.6"),
            ],
        ) as client,
    ):
        for _ in range(2):
            await client.send("?")
            # uvicorn believes the proxies on 127.0.0.1 unless it is told otherwise.
            address = "127.0.0.1" if kind is None else "6.6.6.6"
            expected = ["/al ice", "ü", ["1", "2"], {"a": "1", "b": "2"}, address, []]
            assert json.loads(await client.recv()) == expected


@async_test
async def test_a_request_may_be_given_where_the_websocket_has_none() -> None:
    """A pair of callables and a fake WebSocket have none."""
    async with fake_cluster(1) as cluster:
        given = Request("/ws", "", "Cookie: a=1")
        connection, _ = await cluster.connect(0, "n", "a", request=given)
        assert connection.request is given
        assert Connection("b", "n", FakeWebSocket()).request == Request()


def test_the_test_client_of_starlette_may_connect() -> None:
    """It is no browser, and its key is not valid by RFC 6455."""
    pytest.importorskip("httpx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would rather have another library than httpx
        from starlette.testclient import TestClient
    cluster = fake_cluster(1)
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        async with cluster as (pool,), pool.accept(websocket, namespace="n") as connection:
            await connection.send(str(connection.request.client))

    with TestClient(app) as client, client.websocket_connect("/ws") as websocket:
        assert websocket.receive_text() == "testclient"
