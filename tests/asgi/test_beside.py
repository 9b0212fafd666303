"""Our protocol of uvicorn in a real process: endings at bad moments, and endpoints of odd ways."""

import asyncio
import random
import signal
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.asgi.servers import Server, installed, running
from tests.asgi.test_departures import away, server_has
from tests.servers import BINARIES, RedisServer
from tests.stubborn import Stubborn, stubborn
from tests.support import async_test, eventually
from tests.transports.frames import CLOSE, TEXT, read_messages
from tools.harness.frames import PING, PONG, masked, request

OURS = "uvicorn ours"
COUNT, BIG = 300, 4 * 1024 * 1024
"""As in the app."""
APP = "tests.asgi.beside:app"
TOO_LARGE = b"\x82\xff" + (2**40).to_bytes(8, "big") + bytes(4)
ENDS = {
    "a Close": masked(CLOSE, (4000).to_bytes(2, "big")),
    "a frame that is too large": TOO_LARGE,
    "no frame": b"\xff\x80" + bytes(4),
    "an end of the stream": b"",
}
OTHERS = (
    *("uvicorn websockets", "uvicorn websockets-sansio", "uvicorn wsproto", "hypercorn", "granian"),
)
every_loop = pytest.mark.parametrize("loop", ["asyncio", "uvloop"])


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file, none of which harms it."""
    with RedisServer(next(iter(BINARIES))) as server:
        yield server


def numbers(client: Stubborn) -> list[int]:
    return [int(payload) for opcode, payload in read_messages(client.heard) if opcode == TEXT]


@every_loop
@async_test
async def test_messages_that_count_as_delivered_are_written_ahead_of_the_end(
    redis: RedisServer, loop: str
) -> None:
    """The client reads on: it ends the stream, closes, or breaks the protocol at any moment."""
    async with running(OURS, redis.url, "--loop", loop, app=APP) as server:

        async def ends(user: str, last: bytes) -> tuple[list[int], int]:
            async with stubborn(server.url(f"/ws/pumped/{user}")) as client:
                await eventually(lambda: len(client.heard) > 100)
                await asyncio.sleep(random.random() / 50)
                client.writer.write(last) if last else client.writer.write_eof()
                await eventually(lambda: client.ended)
                await eventually(lambda: away(server, user))
                return numbers(client), (await server.state())["pumped"][user]

        for name, last in ENDS.items():
            for number in range(10):
                heard, delivered = await ends(f"{name[:6].replace(' ', '')}{number}", last)
                assert heard == list(range(delivered)), name
        assert server.complaints() == []


@every_loop
@async_test
async def test_both_ways_of_sending_keep_the_order_of_an_endpoint(
    redis: RedisServer, loop: str
) -> None:
    """Also without ``accept``, and under a middleware that wraps ``receive``."""
    expected = [*map(str, range(COUNT)), "last"]
    for wrapped in ({}, {"WRAPPED": "1"}):
        async with running(OURS, redis.url, "--loop", loop, app=APP, **wrapped) as server:
            for way in ("ws", "made"):
                async with server.connect(f"/{way}/mixes/{way}") as client:
                    assert [message async for message in client] == expected, (way, wrapped)
                assert client.close_code == 1001


@pytest.mark.parametrize("name", [name for name in OTHERS if installed(name)])
@async_test
async def test_both_ways_keep_the_order_and_lose_nothing_on_every_server(
    redis: RedisServer, name: str
) -> None:
    """The endpoint's own close goes behind the last message of the pool, too."""
    expected = [*map(str, range(COUNT)), "last"]
    async with running(name, redis.url, app=APP) as server:
        for way in ("ws", "made"):
            async with server.connect(f"/{way}/mixes/{way}") as client:
                assert [message async for message in client] == expected, way
            assert client.close_code == 1001
        assert server.complaints() == []


@every_loop
@async_test
async def test_large_frames_of_two_connections_of_one_websocket_are_whole(
    redis: RedisServer, loop: str
) -> None:
    """One of them is cut short by a full socket, and there is room again for the next one."""
    count = 8
    async with (
        running(OURS, redis.url, "--loop", loop, app=APP) as server,
        server.connect("/nested/a", max_size=2 * BIG) as client,
    ):
        await client.send(str(count))
        heard = [str(await client.recv()) for _ in range(2 * count)]
        assert {len(one) for one in heard} == {BIG}
        found = [one.rstrip(".") for one in heard]
        assert sorted(found) == sorted(f"{ns}{n:06}" for n in range(count) for ns in ("one", "two"))


@async_test
async def test_a_client_whose_end_was_read_before_is_no_member(redis: RedisServer) -> None:
    """The endpoint has read it by the framework's method, and asks the pool nevertheless."""
    async with (
        running(OURS, redis.url, app=APP) as server,
        stubborn(server.url("/late/a")) as client,
    ):
        await eventually(lambda: opened(server, "a"))
        client.writer.transport.abort()
        await asyncio.sleep(0.3)
        await eventually(lambda: away(server, "a"), 5)


async def opened(server: Server, user: str) -> bool:
    return user in (await server.state())["open"]


@async_test
async def test_a_task_that_reads_already_gets_its_message_and_the_rest_is_the_pools(
    redis: RedisServer,
) -> None:
    """It has begun to read by the framework's method."""
    async with running(OURS, redis.url, app=APP) as server:
        async with server.connect("/reads_before/a") as client:
            await eventually(lambda: server_has(server, ["a"]))
            for text in ("first", "second", "third"):
                await client.send(text)
            await eventually(lambda: heard_by(server, "a", ["first", "second", "third"]))
        await eventually(lambda: away(server, "a"), 5)
        assert server.complaints() == []


async def heard_by(server: Server, user: str, messages: list[str]) -> bool:
    return bool((await server.state())["said"].get(user) == messages)


@async_test
async def test_a_task_that_reads_when_its_context_ends_is_told_of_the_end(
    redis: RedisServer,
) -> None:
    """The client answers the close later."""
    async with (
        running(OURS, redis.url, app=APP, CLOSE="5") as server,
        stubborn(server.url("/ws/leaves_a_reader/a")) as client,
    ):
        await client.told(1000)
        await eventually(lambda: away(server, "a"))
        client.writer.write(ENDS["a Close"])
        await eventually(lambda: client.ended)
        await eventually(lambda: ended_readers(server))
        assert server.complaints() == []


async def ended_readers(server: Server) -> bool:
    return not (await server.state())["readers"]


@async_test
async def test_messages_that_come_before_the_answer_to_a_close_are_read(
    redis: RedisServer,
) -> None:
    """The client has sent them before it has seen the Close of the connection itself."""
    async with (
        running(OURS, redis.url, app=APP, CLOSE="5") as server,
        stubborn(server.url("/ws/sink/a")) as client,
    ):
        client.say("before")
        await eventually(lambda: heard_by(server, "a", ["before"]))
        closing = asyncio.create_task(server.get("/close/a"))
        await client.told(4000)
        client.say("between")
        client.say("and again")
        await eventually(lambda: heard_by(server, "a", ["before", "between", "and again"]))
        client.writer.write(ENDS["a Close"])
        await eventually(lambda: client.ended, 3)
        await closing
        assert (await server.state())["forced_closes"] == 0
        assert server.complaints() == []


@async_test
async def test_a_client_that_answers_no_ping_and_reads_nothing_is_no_member_and_cut(
    redis: RedisServer,
) -> None:
    """The socket is full of the framework's own sends, so that uvicorn's close cannot end it."""
    options = ("--ws-ping-interval", "0.3", "--ws-ping-timeout", "0.3")
    async with (
        running(OURS, redis.url, *options, app=APP) as server,
        stubborn(server.url("/ws/chokes/a"), reads=False),
    ):
        await eventually(lambda: away(server, "a"), 6)
        await eventually(lambda: cut(server))


async def cut(server: Server) -> bool:
    return bool((await server.state())["forced_closes"])


@async_test
async def test_a_stop_ends_cleanly_beside_a_client_that_has_closed_and_reads_nothing(
    redis: RedisServer,
) -> None:
    """Its Close is answered behind what it does not read; it is no connection of the pool."""
    async with (
        running(OURS, redis.url, app=APP) as server,
        stubborn(server.url("/plain/a"), reads=False) as client,
    ):
        await eventually(lambda: opened(server, "a"))
        await asyncio.sleep(0.5)
        client.writer.write(ENDS["a Close"])
        await eventually(lambda: away(server, "a"))
        server.process.send_signal(signal.SIGTERM)
        await eventually(lambda: "Shutting down" in server.said())
        client.writer.transport.abort()
        assert await server.ended() in (0, -signal.SIGTERM)
        assert "Application shutdown complete" in server.said()
        assert "Traceback" not in server.said()


@async_test
async def test_answers_to_pings_that_are_not_read_are_bounded(redis: RedisServer) -> None:
    """As in ``serve``: the client is closed as a slow consumer."""
    pings = masked(PING, bytes(125)) * 500
    async with running(OURS, redis.url, app=APP, OUTBOX="1000000") as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            await asyncio.to_thread(shake_hands, client, "/ws/sink/a")
            await eventually(lambda: server_has(server, ["a"]))
            flooding = asyncio.create_task(asyncio.to_thread(flood, client, pings))
            await eventually(lambda: slow(server), 30)
            await flooding
        await eventually(lambda: away(server, "a"))


async def slow(server: Server) -> bool:
    return bool((await server.state())["slow_consumers"])


def shake_hands(client: socket.socket, path: str) -> None:
    client.sendall(request(path))
    while b"\r\n\r\n" not in client.recv(4096):
        pass


def flood(client: socket.socket, data: bytes) -> None:
    """Send without reading until the server gives it up."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(20)
    try:
        for _ in range(5000):
            client.sendall(data)
    except OSError:
        return


@async_test
async def test_a_message_of_parts_without_end_closes_its_client(redis: RedisServer) -> None:
    """Empty parts are no bytes of a message, but each takes memory."""
    async with (
        running(OURS, redis.url, app=APP) as server,
        stubborn(server.url("/ws/sink/a")) as client,
    ):
        client.writer.write(b"\x01\x80" + bytes(4) + (b"\x00\x80" + bytes(4)) * 5000)
        await client.told(1009)
        await eventually(lambda: client.ended)
        await eventually(lambda: away(server, "a"))
        assert server.complaints() == []


@async_test
async def test_a_flood_that_is_not_read_closes_its_client(redis: RedisServer) -> None:
    """The endpoint reads nothing; the first messages are kept, and the rest would cost CPU."""
    async with running(OURS, redis.url, app=APP) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            await asyncio.to_thread(shake_hands, client, "/ws/waits/a")
            await eventually(lambda: server_has(server, ["a"]))
            flooding = asyncio.create_task(asyncio.to_thread(flood, client, masked(TEXT) * 5000))
            await eventually(lambda: flooded(server), 20)
            await flooding
        await eventually(lambda: away(server, "a"))


async def flooded(server: Server) -> bool:
    return bool((await server.state())["inbound_floods"])


@async_test
async def test_a_large_message_of_the_framework_makes_no_slow_consumer(redis: RedisServer) -> None:
    """It is larger than an outbox, and the pool sends small ones while the client reads it."""
    async with (
        running(OURS, redis.url, app=APP, OUTBOX="1000000") as server,
        stubborn(server.url("/ws/sends_large/a"), reads=False) as client,
    ):
        tcp: Any = client.writer.transport
        for _ in range(100):
            tcp.resume_reading()
            await asyncio.sleep(0.001)
            tcp.pause_reading()
            await asyncio.sleep(0.01)
        tcp.resume_reading()
        await eventually(lambda: client.heard.endswith(b"\x81\x04last"), 20)
        sizes = [len(payload) for opcode, payload in read_messages(client.heard) if opcode == TEXT]
        assert sizes.count(2 * BIG) == 2
        assert (await server.state())["slow_consumers"] == 0


@pytest.mark.parametrize("way", ["pool", "plain"])
@async_test
async def test_bytes_that_come_before_the_request_is_answered_wait_for_that(
    redis: RedisServer, way: str
) -> None:
    """A client should wait, but a pong ahead of the answer would end it, and an error be logged."""
    early = masked(PING, b"p") + b"".join(masked(TEXT, b"%d" % number) for number in range(400))
    async with running(OURS, redis.url, app=APP) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request(f"/hesitates/{way}/a"))
            await eventually(lambda: opened(server, "a"))
            client.sendall(early + masked(CLOSE, b"\x03\xe8"))
            answer = await asyncio.to_thread(read_to_the_end, client)
        await eventually(lambda: heard_by(server, "a", [str(number) for number in range(400)]))
        head, _, frames = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert list(read_messages(frames)) == [(PONG, b"p"), (CLOSE, b"\x03\xe8")]
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request(f"/hesitates/{way}/b"))
            await eventually(lambda: opened(server, "b"))
            client.sendall(ENDS["no frame"])
            assert b"\x88" in await asyncio.to_thread(read_to_the_end, client)
        await eventually(lambda: away(server, "a", "b"))
        assert server.complaints() == []


def read_to_the_end(client: socket.socket) -> bytes:
    data = b""
    client.settimeout(10)
    while more := client.recv(65536):
        data += more
    return data
