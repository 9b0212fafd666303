"""aiohttp's own server, with real clients: messages, ends of every kind, refusals."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cluster_pool import (
    AlreadyReadError,
    Auth,
    ClusterPoolError,
    Connection,
    ConnectionClosedError,
    ConnectionsPool,
    Identity,
    IdTakenError,
    Limits,
    Request,
    SendResult,
)
from cluster_pool.transports.aiohttp import AiohttpTransport, WriterBehind, as_http
from tests.clusters import Backend, Pool
from tests.stubborn import stubborn
from tests.support import async_test, eventually
from tools.harness.nodes import close_code

LARGE = "large " * 20_000
Body = Callable[[Connection], Awaitable[None]]


async def echo(connection: Connection) -> None:
    async for message in connection:
        await connection.send(message)


async def waits(connection: Connection) -> None:
    await asyncio.Event().wait()


@contextlib.asynccontextmanager
async def served(
    pool: Pool,
    body: Body = echo,
    *,
    compress: bool = False,
    autoping: bool = True,
    **options: Any,
) -> AsyncIterator[str]:
    """A server of aiohttp; gives the URL of its WebSockets, whose last part is the id."""
    largest = 16 * 1024 * 1024

    async def endpoint(request: web.Request) -> web.StreamResponse:
        websocket = web.WebSocketResponse(
            compress=compress, autoping=autoping, max_msg_size=largest
        )
        id = request.match_info["id"]
        async with pool.accept((request, websocket), namespace="n", id=id, **options) as connection:
            await body(connection)
        return websocket

    app = web.Application()
    app.router.add_get("/{id}", endpoint)
    runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"ws://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def pool_with(**options: Any) -> AsyncIterator[Pool]:
    """A pool on fakeredis."""
    async with Backend(None).pools(1, **options) as (pool,):
        yield pool


@pytest.mark.parametrize("compress", [False, True])
@async_test
async def test_messages_come_whole_and_in_order(compress: bool) -> None:
    """Texts and bytes, up to 10 MB, compressed or not; those that aiohttp sends come between."""
    large = "x" * 10_000_000
    own = asyncio.Event()

    async def mixes(connection: Connection) -> None:
        _, websocket = connection.websocket
        async for message in connection:
            await connection.send(message)
            await websocket.send_str("between")
            await connection.send(b"behind")
            own.set()

    limits = Limits(message_bytes=2**24, outbox_bytes=2**25, inbound_bytes=2**25)
    async with (
        pool_with(limits=limits) as pool,
        served(pool, mixes, compress=compress) as url,
        connect(f"{url}/alice", max_size=None, proxy=None) as alice,
    ):
        assert bool(alice.protocol.extensions) is compress
        for message in ("hello", b"\0\xff", "", large):
            await alice.send(message)
            assert [await alice.recv() for _ in range(3)] == [message, "between", b"behind"]
        assert own.is_set()
        assert await pool.send("n", "alice", "hi") is SendResult.DELIVERED
        assert await pool.broadcast_message("n", b"all") == 1
        assert [await alice.recv(), await alice.recv()] == ["hi", b"all"]


@pytest.mark.parametrize("compress", [False, True])
@async_test
async def test_a_close_of_the_endpoint_goes_behind_what_was_sent_and_frees_the_writer(
    compress: bool,
) -> None:
    """The WebSocket has the writer of aiohttp again, when it is no connection any more."""
    writers: list[Any] = []

    async def closes(connection: Connection) -> None:
        _, websocket = connection.websocket
        writers.append(websocket)
        assert await connection.send(LARGE) is SendResult.DELIVERED
        await websocket.close(code=4000)

    async with (
        pool_with() as pool,
        served(pool, closes, compress=compress) as url,
        connect(f"{url}/alice", proxy=None) as alice,
    ):
        assert await alice.recv() == LARGE
        assert await close_code(alice) == 4000
        await eventually(lambda: not pool.has_namespace("n"))
        await eventually(lambda: not isinstance(writers[0]._writer, WriterBehind))


@pytest.mark.parametrize("autoping", [False, True])
@async_test
async def test_pings_of_clients_are_answered(autoping: bool) -> None:
    """No other reader can do it: aiohttp permits one."""
    async with (
        pool_with() as pool,
        served(pool, autoping=autoping) as url,
        connect(f"{url}/alice", proxy=None) as alice,
    ):
        await (await alice.ping())


@async_test
async def test_frames_are_written_to_the_descriptor_unless_aiohttp_compresses() -> None:
    """Only to an open WebSocket whose buffer is empty."""
    for compress in (False, True):
        async with (
            pool_with() as pool,
            served(pool, compress=compress) as url,
            connect(f"{url}/alice", proxy=None) as alice,
        ):
            transport = transport_of(pool)
            assert (transport.descriptor() >= 0) is not compress
            assert await pool.close("n", "alice", 4001)
            assert transport.descriptor() == -1
            assert await close_code(alice) == 4001


def transport_of(pool: Pool, id: str = "alice") -> Any:
    connection = pool.get_connection("n", id)
    assert connection is not None
    assert isinstance(connection._transport, AiohttpTransport)
    return connection._transport


@pytest.mark.parametrize("body", [echo, waits])
@async_test
async def test_a_client_that_leaves_is_no_member_at_once_and_its_body_ends(body: Body) -> None:
    """By a Close and by a reset; what it sent before a Close is still read."""
    ended = asyncio.Event()

    async def watched(connection: Connection) -> None:
        try:
            await body(connection)
        finally:
            ended.set()

    async with pool_with() as pool, served(pool, watched) as url:
        for leave in ("close", "reset"):
            ended.clear()
            alice = await connect(f"{url}/alice", proxy=None).__aenter__()
            await alice.send("hello")
            if leave == "close":
                await alice.close(4000, "bye")
            else:
                alice.transport.abort()
            await eventually(lambda: not pool.has_namespace("n"))
            await asyncio.wait_for(ended.wait(), 5)


@async_test
async def test_the_pool_closes_with_its_code_and_a_takeover_with_4409() -> None:
    """The body ends; a handler of the close is told."""
    told: list[tuple[int, str]] = []

    async def body(connection: Connection) -> None:
        connection.on("close", lambda code, reason: told.append((code, reason)))
        await connection.run()

    async with pool_with() as pool, served(pool, body) as url:
        async with connect(f"{url}/alice", proxy=None) as alice:
            assert await pool.send_then_close("n", "alice", "last", 4001, "bye")
            assert await alice.recv() == "last"
            assert (await close_code(alice), alice.close_reason) == (4001, "bye")
        await eventually(lambda: told == [(4001, "bye")])
        async with (
            connect(f"{url}/alice", proxy=None) as older,
            connect(f"{url}/alice", proxy=None) as newer,
        ):
            assert await close_code(older) == 4409
            assert await pool.send("n", "alice", "hi") is SendResult.DELIVERED
            assert await newer.recv() == "hi"


@async_test
async def test_a_client_that_reads_nothing_is_closed_and_cut() -> None:
    """Its socket is gone, and its endpoint has ended."""

    async def floods(connection: Connection) -> None:
        while True:
            await connection.send("x" * 100_000)
            await asyncio.sleep(0.001)

    async with (
        pool_with() as pool,
        served(pool, floods) as url,
        stubborn(f"{url}/alice", reads=False),
    ):
        await eventually(lambda: pool.has_namespace("n"))
        tcp = transport_of(pool)._tcp
        await eventually(lambda: not pool.has_namespace("n"), 30)
        assert pool.statistics()["slow_consumers"] == 1
        await eventually(lambda: tcp.is_closing() and not tcp.get_write_buffer_size(), 20)


@async_test
async def test_refusals_are_statuses(caplog: pytest.LogCaptureFixture) -> None:
    """aiohttp answers with them, and logs no traceback. Nothing was claimed."""

    async def by_query(request: Request) -> Identity | None:
        token = request.query.get("token")
        return Identity(user="u", namespaces=[token]) if token else None

    async with pool_with(on_conflict="reject") as pool:
        async with served(pool) as url, connect(f"{url}/alice", proxy=None):
            assert await refused(f"{url}/alice") == (409, None)
            assert await refused(f"{url}/{'x' * 300}") == (400, None)
            assert await refused(f"{url}/bob", origin="https://evil.example") == (403, None)
            await pool.drain_connections(force=True)
            assert await refused(f"{url}/bob") == (503, "1")
            await pool.activate()
        async with served(pool, auth=Auth(authenticate=by_query)) as url:
            assert (await refused(f"{url}/bob"))[0] == 401
            assert (await refused(f"{url}/bob?token=other"))[0] == 403
            async with connect(f"{url}/bob?token=n", proxy=None):
                assert pool.get_connection("n", "bob").user == "u"  # type: ignore[union-attr]
    assert "Traceback" not in caplog.text
    assert [one for one in caplog.records if one.name.startswith("aiohttp.server")] == []


async def refused(url: str, **options: Any) -> tuple[int, str | None]:
    """The status of a refusal, and when to come back."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(url, proxy=None, **options)
    response = caught.value.response
    return response.status_code, response.headers.get("Retry-After")


@async_test
async def test_a_subprotocol_is_answered_if_the_client_offers_it() -> None:
    async with pool_with() as pool, served(pool, subprotocol="v1") as url:
        async with connect(f"{url}/alice", subprotocols=["v2", "v1"], proxy=None) as alice:
            assert alice.subprotocol == "v1"
        assert (await refused(f"{url}/bob"))[0] == 400


@async_test
async def test_an_answered_websocket_is_a_connection_without_accept() -> None:
    """Also in a pool of one process, which reads it by itself."""

    async with ConnectionsPool() as pool:

        async def endpoint(request: web.Request) -> web.StreamResponse:
            websocket = web.WebSocketResponse()
            await websocket.prepare(request)
            connection = Connection("alice", "n", (request, websocket))
            await pool.new_connection(connection)
            await echo(connection)
            await pool.remove_connection(connection)
            return websocket

        app = web.Application()
        app.router.add_get("/", endpoint)
        runner = web.AppRunner(app, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with connect(f"ws://127.0.0.1:{runner.addresses[0][1]}", proxy=None) as alice:
            await alice.send("hello")
            assert await alice.recv() == "hello"
            await alice.close(4000)
            await eventually(lambda: not pool.has_namespace("n"))
        await runner.cleanup()


@async_test
async def test_another_reader_gets_the_error_of_this_library() -> None:
    """aiohttp lets one task read at a time: with accept, that is ours."""
    raised: list[BaseException] = []

    async def body(connection: Connection) -> None:
        _, websocket = connection.websocket
        try:
            await websocket.receive()
        except RuntimeError as error:
            raised.append(error)
        second = asyncio.create_task(anext(aiter(connection)))
        await asyncio.sleep(0)
        try:
            await anext(aiter(connection))
        except AlreadyReadError as error:
            raised.append(error)
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)

    async with (
        pool_with() as pool,
        served(pool, body) as url,
        connect(f"{url}/alice", proxy=None) as alice,
    ):
        assert await close_code(alice) == 1000
    assert len(raised) == 2


def test_an_error_becomes_aiohttps_and_stays_itself() -> None:
    """With its own attributes and text."""
    error = IdTakenError("n", "alice")
    text, before = str(error), dict(vars(error))
    as_http(error, 409, "this id is taken")
    as_http(error, 409, "this id is taken")
    assert isinstance(error, IdTakenError)
    assert isinstance(error, ClusterPoolError)
    assert isinstance(error, web.HTTPException)
    assert (error.status, error.text, str(error)) == (409, "this id is taken\n", text)
    assert before.items() <= vars(error).items()
    assert not isinstance(error, ConnectionClosed | ConnectionClosedError)
