"""The ``websockets`` transport over real sockets."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.protocol import State

from cluster_pool import Connection, ConnectionsPool, IdTakenError, SendResult, Timing
from cluster_pool.local.closing import is_gone
from cluster_pool.local.signs import is_alive
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test, eventually
from tools.harness.nodes import close_code


@contextlib.asynccontextmanager
async def pair(
    pool: ConnectionsPool, *, compression: str | None = None, **options: Any
) -> AsyncIterator[tuple[Connection, ClientConnection]]:
    """A member of the pool and its client, over loopback."""
    ready: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    async def handler(websocket: ServerConnection) -> None:
        connection = Connection("1", "n", websocket, **options)
        await pool.new_connection(connection)
        ready.set_result(connection)
        await connection.run()
        await pool.remove_connection(connection)

    async with serve(handler, "127.0.0.1", 0, compression=compression) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with connect(
            f"ws://127.0.0.1:{port}", compression=compression, max_size=None, ping_interval=None
        ) as client:
            yield await ready, client


@pytest.mark.parametrize("compression", [None, "deflate"])
@async_test
async def test_every_length_arrives_as_it_was_sent(compression: str | None) -> None:
    """Text and binary, on both sides of each length encoding, with and without compression."""
    async with ConnectionsPool() as pool, pair(pool, compression=compression) as (one, client):
        for size in (0, 1, 125, 126, 127, 65535, 65536, 1024 * 1024):
            for message in ("x" * size, b"\xff" * size):
                assert await one.send(message) is SendResult.DELIVERED
                assert await client.recv() == message


@async_test
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_frames_of_a_clients_end_are_masked(compression: str | None) -> None:
    """A connection that we opened is a member like any other; its server accepts our frames."""
    async with ConnectionsPool() as pool, pair(pool, compression=compression) as (one, client):
        got: list[str | bytes] = []
        one.on("message", got.append)
        ours = Connection("2", "made", client)
        await pool.new_connection(ours)
        sent = ["a", "ü" * 100, b"\x00" * 70_000, *map(str, range(50))]
        for message in sent:
            assert await ours.send(message) is SendResult.DELIVERED
        await pool.broadcast_message("made", "all")
        await eventually(lambda: len(got) == len(sent) + 1 or one.closed)
        assert got == [*sent, "all"]
        await ours.close(4000, "bye")
        await eventually(lambda: one.close_code)
        assert (one.close_code, one.close_reason) == (4000, "bye")


@pytest.mark.parametrize("compression", [None, "deflate"])
@async_test
async def test_sends_and_closes_of_the_library_go_behind_messages_of_the_pool(
    compression: str | None,
) -> None:
    """Also of a second connection of the same WebSocket."""
    async with ConnectionsPool() as pool, pair(pool, compression=compression) as (one, client):
        other = Connection("other", "n", one.websocket)
        await pool.new_connection(other)
        for number in range(0, 300, 3):
            assert await one.send(str(number)) is SendResult.DELIVERED
            assert await other.send(str(number + 1)) is SendResult.DELIVERED
            await one.websocket.send(str(number + 2))
        await one.send("last")
        await one.websocket.close(4000)
        assert [await client.recv() for _ in range(301)] == [*map(str, range(300)), "last"]
        assert await close_code(client) == 4000


@async_test
async def test_a_burst_arrives_whole_and_in_order() -> None:
    """Targeted and broadcast messages of one tick keep their order."""
    async with ConnectionsPool() as pool, pair(pool) as (_, client):
        for number in range(0, 200, 2):
            await pool.send("n", "1", str(number))
            await pool.broadcast_message("n", str(number + 1).encode())
        got = [await client.recv() for _ in range(200)]
        assert [int(message) for message in got] == list(range(200))
        assert {type(message) for message in got[1::2]} == {bytes}


@async_test
async def test_a_fragmented_message_in_progress_is_not_split() -> None:
    """While the application sends fragments, our messages wait and follow them, in order."""
    async with ConnectionsPool() as pool, pair(pool) as (one, client):
        go_on = asyncio.Event()

        async def fragments() -> AsyncIterator[str]:
            yield "frag"
            await go_on.wait()
            yield "ment"

        sending = asyncio.create_task(one.websocket.send(fragments()))
        await eventually(lambda: one.websocket.send_in_progress)
        await one.send("a")
        await one.send_then_close("b", 4000, "after")
        await asyncio.sleep(0.01)
        go_on.set()
        await sending
        assert [await client.recv() for _ in range(3)] == ["fragment", "a", "b"]
        await client.wait_closed()
        assert client.close_code == 4000


@async_test
async def test_a_close_follows_sent_messages() -> None:
    """The client gets every message, then the code and the reason."""
    async with ConnectionsPool() as pool, pair(pool) as (one, client):
        for number in range(50):
            await one.send(str(number))
        closing = asyncio.create_task(one.close(4321, "grüße"))
        got = []
        with contextlib.suppress(Exception):
            while True:
                got.append(await client.recv())
        assert got == [str(number) for number in range(50)]
        await closing
        assert (client.close_code, client.close_reason) == (4321, "grüße")


@async_test
async def test_the_clients_close_is_noticed() -> None:
    """The close handlers get the client's code; 1006 when it just vanished."""
    for leave, expected in (("close", (3001, "bye")), ("abort", (1006, ""))):
        async with ConnectionsPool() as pool, pair(pool) as (one, client):
            told: list[tuple[int, str]] = []
            one.on("close", lambda code, reason, told=told: told.append((code, reason)))
            if leave == "close":
                await client.close(3001, "bye")
            else:
                client.transport.abort()
            await eventually(lambda told=told: told)
            assert told == [expected]
            await eventually(lambda pool=pool: not pool.has_namespace("n"))
            assert await one.send("late") is SendResult.REFUSED


@async_test
async def test_a_client_that_does_not_answer_the_close_is_cut() -> None:
    """The close handshake has a deadline, after which the socket is aborted."""
    async with ConnectionsPool(timing=Timing(close=0.3)) as pool, pair(pool) as (one, client):
        client.transport.pause_reading()
        await one.close(1000)
        assert is_gone(one)
        assert pool.statistics()["forced_closes"] == 1
        client.transport.abort()


@async_test
async def test_handlers_hear_text_and_binary() -> None:
    """A client's messages reach the handlers, one after another."""
    async with ConnectionsPool() as pool, pair(pool) as (one, client):
        seen: list[str | bytes] = []

        async def note(message: str | bytes) -> None:
            await asyncio.sleep(0)
            seen.append(message)

        one.on("message", note)
        for message in ("a", b"b", "c"):
            await client.send(message)
        await eventually(lambda: len(seen) == 3)
        assert seen == ["a", b"b", "c"]


@async_test
async def test_a_client_that_gives_a_sign_of_life_keeps_its_id() -> None:
    """It answers pings, or sends without answering; for any number of callers."""
    timing = Timing(sign_of_life=0.4, close=1.0)
    pool = ConnectionsPool(on_conflict="reject", timing=timing)
    async with pool, pair(pool) as (one, client):
        got: list[str | bytes] = []
        one.on("message", got.append)
        with pytest.raises(IdTakenError):
            await pool.new_connection(Connection("1", "n", FakeWebSocket()))
        client.transport.pause_reading()
        calm = asyncio.Event()

        async def talk() -> None:
            while not calm.is_set():
                await client.send("x")
                await asyncio.sleep(0.02)

        talking = asyncio.create_task(talk())
        for _ in range(3):
            with pytest.raises(IdTakenError):
                await pool.new_connection(Connection("1", "n", FakeWebSocket()))
            await asyncio.sleep(0.4)  # until the sign that was given counts no more
        calm.set()
        await talking
        await asyncio.sleep(0.5)
        newcomers = [Connection("1", "n", FakeWebSocket()) for _ in range(5)]
        joining = [pool.new_connection(newcomer) for newcomer in newcomers]
        outcomes = await asyncio.gather(*joining, return_exceptions=True)
        assert sum(isinstance(outcome, IdTakenError) for outcome in outcomes) == 4
        assert (is_gone(one), one.close_code, one._forced) == (True, 1006, True)
        assert pool.get_connection("n", "1") in newcomers
        client.transport.resume_reading()


@async_test
async def test_a_client_whose_messages_are_not_read_is_not_judged() -> None:
    """Its answer is queued behind them: our backlog is not its fault."""
    async with ConnectionsPool(timing=Timing(sign_of_life=0.2)) as pool:
        accepted: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

        async def handler(websocket: ServerConnection) -> None:
            connection = Connection("1", "n", websocket)
            await pool.new_connection(connection)
            accepted.set_result(connection)
            await websocket.wait_closed()  # without reading

        async with serve(handler, "127.0.0.1", 0, ping_interval=None) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with connect(f"ws://127.0.0.1:{port}", ping_interval=None) as client:
                one = await accepted
                for _ in range(100):
                    await client.send("x")
                await eventually(lambda: not one.websocket.transport.is_reading())
                assert await is_alive(one, 0.2)
                one.websocket.transport.abort()
                await eventually(lambda: one.websocket.state is State.CLOSED)
                assert not await is_alive(one, 0.2)
