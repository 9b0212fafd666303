"""Asking a connection for receipts, at a real WebSocket of ``websockets``."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from cluster_pool import Connection, ConnectionsPool, SendResult, Timing
from cluster_pool.local import pinging
from cluster_pool.local.handshake import hold, refuse, release_hold
from cluster_pool.local.outbox import begin_close, ping_unreceived
from cluster_pool.local.pinging import expect, keep_account
from cluster_pool.testing import FakeWebSocket
from tests.frame_client import CLOSE, PING, PONG, TEXT, FrameClient
from tests.support import async_test, eventually

RECEIVED, TIMED_OUT = SendResult.RECEIVED, SendResult.TIMED_OUT


@contextlib.asynccontextmanager
async def served(
    pool: ConnectionsPool, **options: Any
) -> AsyncIterator[tuple[str, "asyncio.Future[Connection]"]]:
    """The URL of a server of ``websockets``, and the connection of its first client."""
    ready: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    async def handler(websocket: ServerConnection) -> None:
        connection = Connection("1", "n", websocket)
        await pool.new_connection(connection)
        ready.set_result(connection)
        await connection.run()
        await pool.remove_connection(connection)

    async with serve(handler, "127.0.0.1", 0, ping_interval=None, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        yield f"ws://127.0.0.1:{port}/", ready


@contextlib.asynccontextmanager
async def plain(*, receipts: bool = True) -> AsyncIterator[tuple[FrameClient, Connection]]:
    """A client of single frames, and its connection at the server."""
    async with (
        ConnectionsPool() as pool,
        served(pool) as (url, ready),
        FrameClient.connect(url) as client,
    ):
        connection = await ready
        connection._services.receipts = receipts
        yield client, connection


def receipt(connection: Connection, within: float = 60.0) -> "asyncio.Future[SendResult]":
    """The receipt of all that was sent so far."""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[SendResult] = loop.create_future()
    assert expect(connection, told.set_result, loop.time() + within)
    return told


@async_test
async def test_each_tick_has_one_ping_behind_its_messages() -> None:
    """The library's own pings are answered as before."""
    async with plain() as (client, connection):
        for _ in range(3):
            both = []
            for message in "ab":
                await connection.send(message)
                both.append(receipt(connection))
            assert [await client.next() for _ in range(2)] == [(TEXT, b"a"), (TEXT, b"b")]
            kind, payload = await client.next()
            assert kind == PING
            client.send(PONG, payload)
            assert await asyncio.gather(*both) == [RECEIVED, RECEIVED]
        pong = await connection.websocket.ping(b"theirs")
        client.send(PONG, await client.until(PING))
        await pong


@async_test
async def test_ping_waits_behind_a_fragmented_message_of_the_library() -> None:
    """Messages of ours wait for it, and the ping for them."""
    async with plain() as (client, connection):
        more = asyncio.Event()

        async def parts() -> AsyncIterator[str]:
            yield "first"
            await more.wait()
            yield "last"

        sending = asyncio.create_task(connection.websocket.send(parts()))
        assert await client.next() == (TEXT, b"first")
        await connection.send("ours")
        received = receipt(connection)
        await asyncio.sleep(0.1)
        more.set()
        await sending
        kinds = []
        while PING not in kinds:
            kind, payload = await client.next()
            kinds.append(kind)
        assert kinds.index(PING) > kinds.index(TEXT)
        client.send(PONG, payload)
        assert await received is RECEIVED


@async_test
async def test_receipts_of_a_client_that_answers_nothing_are_forgotten() -> None:
    """The sweeper looks at it as long as one is awaited."""
    async with plain() as (client, connection):
        told = receipt(connection, within=0.1)
        await client.until(PING)
        assert connection._receipts is not None
        receipts = connection._receipts
        await eventually(lambda: not receipts.waiting)
        await eventually(lambda: not connection._watched)
        assert not told.done()


@async_test
async def test_too_many_are_not_awaited(monkeypatch: Any) -> None:
    """Then nothing is known of the client."""
    monkeypatch.setattr(pinging, "MOST_WAITING", 2)
    async with plain() as (client, connection):
        both = [receipt(connection), receipt(connection)]
        assert not expect(connection, print, 1e9)
        client.send(PONG, await client.until(PING))
        assert await asyncio.gather(*both) == [RECEIVED, RECEIVED]
        assert expect(connection, lambda result: None, 1e9)


@async_test
async def test_transport_without_pongs_gives_no_receipts() -> None:
    """A pair of callables."""
    assert not expect(Connection("1", "n", FakeWebSocket()), print, 1e9)


@async_test
async def test_every_end_is_told() -> None:
    """An answered Close by its code; a cut as not known."""
    async with ConnectionsPool(timing=Timing(close=0.3)) as pool:
        for answers, result in ((True, RECEIVED), (False, TIMED_OUT)):
            async with served(pool) as (url, ready), FrameClient.connect(url) as client:
                connection = await ready
                told = receipt(connection)
                closing = asyncio.create_task(connection.close(4000))
                code = await client.until(CLOSE)
                if answers:
                    client.send(CLOSE, code)
                assert await told is result
                await closing


@async_test
async def test_account_of_a_connection() -> None:
    """Every message is counted once, however it is written; a Pong says what was received."""
    async with plain() as (client, connection):
        account = keep_account(connection)
        for message in ("a", b"bb", "x" * 200_000):
            await connection.send(message)
        await connection.send("one")
        await connection.send("two")
        texts = [await client.next() for _ in range(5)]
        assert [len(payload) for _, payload in texts] == [1, 2, 200_000, 3, 3]
        assert account.written == (5, 200_009)
        assert account.received == (0, 0)
        client.send(PONG, await client.until(PING))
        await eventually(lambda: account.received == account.written)


@async_test
async def test_keepalive_asks_only_for_what_is_not_received() -> None:
    """Then it pings as it always does."""
    async with plain() as (client, connection):
        assert not ping_unreceived(connection)
        account = keep_account(connection)
        assert not ping_unreceived(connection)
        await connection.send("m")
        assert ping_unreceived(connection)
        assert await client.next() == (TEXT, b"m")
        client.send(PONG, await client.until(PING))
        await eventually(lambda: account.received == (1, 1))
        assert not ping_unreceived(connection)


@async_test
async def test_answered_close_settles_the_account() -> None:
    """By our code, or by the Pong ahead of any code; a client that cuts has settled nothing."""
    for answer, pongs, received in (
        (4000, False, (1, 3)),
        (1000, True, (1, 3)),
        (1000, False, (0, 0)),
        (None, False, (0, 0)),
    ):
        async with plain() as (client, connection):
            account = keep_account(connection)
            await connection.send("bye")
            account.ask()
            begin_close(connection, 4000, "")
            payload = await client.until(PING)
            if pongs:
                client.send(PONG, payload)
            code = await client.until(CLOSE)
            if answer is None:
                client.reset()
            else:
                client.send(CLOSE, answer.to_bytes(2) if answer != 4000 else code)
                client.end()
            await eventually(lambda account=account: account.over)
            assert (account.written, account.received) == ((1, 3), received)


@async_test
async def test_without_receipts_nothing_counts() -> None:
    """A proxy may answer in the place of the client."""
    async with plain(receipts=False) as (client, connection):
        assert not expect(connection, print, 1e9)
        account = keep_account(connection)
        await connection.send("x" * 70_000)
        begin_close(connection, 4000, "")
        assert (await client.next())[0] == TEXT
        kind, code = await client.next()
        assert kind == CLOSE
        client.send(CLOSE, code)
        client.end()
        await eventually(lambda: account.over)
        assert account.received == (0, 0)


@async_test
async def test_ping_waits_for_the_handshake() -> None:
    """It goes behind the messages that are held, and ahead of a Close that waits with them."""
    for closes in (False, True):
        async with plain() as (client, connection):
            hold(connection)
            await connection.send("held")
            told = receipt(connection)
            if closes:
                begin_close(connection, 4000, "")
            await asyncio.sleep(0.05)
            release_hold(connection)
            assert await client.next() == (TEXT, b"held")
            kind, payload = await client.next()
            assert kind == PING
            client.send(PONG, payload)
            assert await told is RECEIVED
            if closes:
                client.send(CLOSE, await client.until(CLOSE))
                client.end()


@async_test
async def test_refused_handshake_leaves_nobody_waiting() -> None:
    """Held messages are not sent, and nothing is claimed."""
    async with plain() as (client, connection):
        hold(connection)
        await connection.send("held")
        told = receipt(connection)
        await refuse(connection, 409, "taken")
        assert await told is TIMED_OUT
        assert await client.until(CLOSE)
        client.end()


@async_test
async def test_client_end_asks_as_a_server_does() -> None:
    """Its frames are masked."""
    heard: asyncio.Queue[str | bytes] = asyncio.Queue()

    async def handler(websocket: ServerConnection) -> None:
        async for message in websocket:
            heard.put_nowait(message)

    async with serve(handler, "127.0.0.1", 0) as server, ConnectionsPool() as pool:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(f"ws://127.0.0.1:{port}/") as websocket:
            connection = Connection("1", "n", websocket)
            await pool.new_connection(connection)
            await connection.send("m")
            assert await receipt(connection) is RECEIVED
            assert await heard.get() == "m"
            await pool.remove_connection(connection)


@async_test
async def test_dropped_message_is_never_received() -> None:
    """A ping that is written all the same would prove it, and so would an answered Close."""
    for closes in (False, True):
        async with plain() as (client, connection):
            writer: Any = connection._writer
            writer.queue().drop()
            await connection.send("a")
            told = receipt(connection)
            assert await client.next() == (TEXT, b"a")
            await connection.send("b")
            assert await client.next() == (TEXT, b"b")
            if closes:
                begin_close(connection, 4000, "")
                client.send(CLOSE, await client.until(CLOSE))
                client.end()
            else:
                client.reset()
            assert await told is TIMED_OUT
