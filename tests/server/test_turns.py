"""Frames of six bytes do not block the loop, and a client that sends too many is closed."""

import asyncio
import contextlib
import socket
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.protocol import Protocol

from cluster_pool import ClusterPool, Connection, Limits
from cluster_pool.local.closing import is_gone
from cluster_pool.local.outbox import kick
from cluster_pool.server.intake import CHUNK, UNPARSED
from cluster_pool.server.node import NodeServer
from cluster_pool.server.turns import FRAMES, SHARE, TINY, Turns
from tests.server.running import raw_client, url
from tests.server.test_intake import node
from tests.servers import RedisServer
from tests.stubborn import stubborn
from tests.support import async_test, eventually
from tools.harness.frames import TEXT, masked
from tools.harness.nodes import close_code

MASK = bytes(4)
FLOODS = {
    "parts": (b"\x02\x80" + MASK, b"\x00\x80" + MASK),
    "pings": (b"", b"\x89\x80" + MASK),
    "pongs": (b"", b"\x8a\x80" + MASK),
    "texts": (b"", b"\x81\x80" + MASK),
}
"""The begin of each stream, and the frame that is then repeated."""


class ParsedInATurn:
    """The most frames that were parsed from one turn of the loop to the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.most = self._now = 0
        original = Protocol.recv_frame

        def counted(protocol: Protocol, frame: Any) -> None:
            self._now += 1
            original(protocol, frame)

        monkeypatch.setattr(Protocol, "recv_frame", counted)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(0)
            self.most, self._now = max(self.most, self._now), 0


@contextlib.contextmanager
def crowd(server: NodeServer, count: int) -> Iterator[list[socket.socket]]:
    """So many sockets that have sent their handshakes."""
    with contextlib.ExitStack() as stack:
        made = [stack.enter_context(raw_client(server, str(number))) for number in range(count)]
        for one in made:
            one.setblocking(False)
        yield made


def heard_of(client: socket.socket) -> bytes:
    """All bytes that have arrived."""
    heard = b""
    with contextlib.suppress(BlockingIOError, ConnectionResetError):
        while data := client.recv(65536):
            heard += data
    return heard


async def listens(pool: ClusterPool, connection: Connection) -> None:
    await connection.wait_closed()


@pytest.mark.parametrize("kind", FLOODS)
@async_test
async def test_tiny_frames_of_many_clients_do_not_hold_the_loop(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Thirty at once: each turn parses a bounded number, and the node keeps its lease."""
    begin, frame = FLOODS[kind]
    count, parsed = 30, ParsedInATurn(monkeypatch)
    limits = Limits(inbound_per_second=200)
    async with node(own_server, limits, app=listens) as (pool, server, most):
        watching = asyncio.create_task(parsed.watch())
        with crowd(server, count) as clients:
            await eventually(lambda: pool.statistics()["connections"] == count)
            loop = asyncio.get_running_loop()
            flood = begin + frame * 20_000
            sending = [asyncio.create_task(loop.sock_sendall(one, flood)) for one in clients]
            await eventually(lambda: pool.statistics()["inbound_floods"] == count, 40)
            for one in clients:
                code = (1008).to_bytes(2, "big")
                heard = bytearray()
                await eventually(lambda: code in heard or heard.extend(heard_of(one)))  # noqa: B023  # awaited here
            assert parsed.most <= FRAMES + SHARE + TINY
            assert most[0] < 16 * 1024 * 1024
            statistics = pool.statistics()
            assert (statistics["rejoins"], statistics["state"]) == (0, "active")
            async with connect(url(server, "calm")) as calm:
                assert await pool.send("room", "calm", "hello")
                assert await calm.recv() == "hello"
            await eventually(lambda: not pool.statistics()["connections"])
            await asyncio.gather(*sending, return_exceptions=True)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@async_test
async def test_bytes_that_wait_for_their_turn_arrive_whole_and_in_order(
    own_server: RedisServer,
) -> None:
    """Far more than a share in one write, then the end of the stream: everything is delivered."""
    got: list[str | bytes] = []

    async def app(pool: ClusterPool, connection: Connection) -> None:
        got.extend([message async for message in connection])

    said = [str(number) for number in range(20 * SHARE)]
    async with node(own_server, Limits(inbound_per_second=10**6), app=app) as (pool, server, _):
        with raw_client(server, "a") as client:
            await eventually(lambda: pool.statistics()["connections"])
            client.sendall(b"".join(masked(TEXT, text.encode()) for text in said))
            client.shutdown(socket.SHUT_WR)
            await eventually(lambda: not pool.statistics()["connections"])
            await eventually(lambda: got == said)


@async_test
async def test_bytes_for_a_slow_app_stay_unparsed(own_server: RedisServer) -> None:
    """A parsed frame takes fifty times the memory of its six bytes: they stay as they came."""
    go, got = asyncio.Event(), []

    async def app(pool: ClusterPool, connection: Connection) -> None:
        await go.wait()
        connection.on("message", got.append)
        await connection.run()

    limits = Limits(inbound_bytes=100_000, inbound_per_second=10**6)
    async with node(own_server, limits, app=app) as (pool, server, most):
        async with stubborn(url(server, "a")) as client:
            client.writer.write(masked(TEXT) * 10_000)
            await eventually(lambda: most[0] > 100_000)
            await eventually(lambda: len(pool.get_connection("room", "a").websocket.frames.queue))
            await asyncio.sleep(0.2)
            assert most[0] < 300_000
            go.set()
            await eventually(lambda: len(got) == 10_000 or client.close_code)
            client.writer.close()
            await eventually(lambda: not pool.statistics()["connections"])
        assert len(got) == 10_000
        assert pool.statistics()["inbound_bytes"] == 0


@async_test
async def test_large_parts_of_a_message_do_not_count_as_noise(own_server: RedisServer) -> None:
    """Some libraries send long messages in parts of 4 KiB; they count as one message."""
    got = []

    async def app(pool: ClusterPool, connection: Connection) -> None:
        got.extend([len(message) async for message in connection])

    async def parts() -> Any:
        for _ in range(250):
            yield b"x" * 4096

    async with (
        node(own_server, Limits(inbound_per_second=10), app=app) as (_, server, _),
        connect(url(server, "a"), compression=None) as client,
    ):
        await client.send(parts())
        await client.send("small")
        await client.close()
        assert await close_code(client) == 1000
    assert got == [250 * 4096, 5]


@async_test
async def test_waiting_clients_take_turns() -> None:
    """The client that waited longest is next, with one share at most; then the loop goes round."""
    turns, order = Turns(), []

    def client(name: str) -> Callable[[int], None]:
        def go_on(share: int) -> None:
            order.append((name, share))
            turns.spent(share)
            turns.wait(go_on)

        return go_on

    clients = [client(name) for name in "abcdef"]
    for one in clients:
        turns.wait(one)
    assert order == []
    await asyncio.sleep(0)
    fits = FRAMES // SHARE
    assert order == [(name, SHARE) for name in "abcdef"[:fits]]
    assert turns.share(1000) == 0
    await asyncio.sleep(0)
    assert [name for name, _ in order] == list("abcdefabcdef")[: 2 * fits]
    turns._waiting.clear()


@async_test
async def test_small_parts_of_a_message_take_no_more_memory_than_their_bytes(
    own_server: RedisServer,
) -> None:
    """They become one message when the last one arrives, however many they are; its reader
    sleeps until then, and the bytes that are held are counted."""
    got = []

    async def app(pool: ClusterPool, connection: Connection) -> None:
        connection.on("message", got.append)
        await connection.run()

    async with (
        node(own_server, Limits(inbound_per_second=10**6), app=app) as (pool, server, most),
        stubborn(url(server, "a")) as client,
    ):
        part = b"\x00\x81" + MASK + b"x"
        client.writer.write(b"\x01\x82" + MASK + "ä".encode() + part * 6_000)
        client.writer.write(b"\x89\x80" + MASK + b"\x80\x81" + MASK + b"y")
        client.say("next")
        await eventually(lambda: len(got) == 2)
        assert got == ["ä" + "x" * 6_000 + "y", "next"]
        assert most[0] < 100_000
        await eventually(lambda: not pool.statistics()["inbound_bytes"])


@async_test
async def test_client_without_a_handler_is_read_no_faster_than_it_is_parsed(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A closed client goes on sending while others use up every turn: its bytes do not gather."""
    async with (
        node(own_server, Limits()) as (pool, server, most),
        stubborn(url(server, "a")) as client,
    ):
        await eventually(lambda: pool.get_connection("room", "a"))
        connection = pool.get_connection("room", "a")
        assert connection is not None
        monkeypatch.setattr(Turns, "share", lambda turns, size: 0)
        monkeypatch.setattr(Turns, "wait", lambda turns, go_on: None)
        kick(connection, 1008, "enough")
        client.writer.write(masked(TEXT, b"x" * 1000) * 8_000)
        await eventually(lambda: is_gone(connection))
        assert 0 < most[0] <= UNPARSED + 2 * CHUNK
        await eventually(lambda: not pool.statistics()["inbound_bytes"])


def inflating(size: int) -> bytes:
    """A compressed frame of a kilobyte, of this size when decompressed."""
    packer = zlib.compressobj(wbits=-15)
    packed = packer.compress(bytes(size)) + packer.flush(zlib.Z_SYNC_FLUSH)
    packed = packed.removesuffix(b"\x00\x00\xff\xff")  # RFC 7692 section 7.2.1
    return b"\xc2\xfe" + len(packed).to_bytes(2, "big") + MASK + packed


@pytest.mark.parametrize("room", [True, False], ids=["a free node", "a full node"])
@async_test
async def test_compressed_frames_count_by_their_decompressed_size(
    own_server: RedisServer, room: bool
) -> None:
    """Forty kilobytes in one read become forty megabytes: parsed on demand, and all arrive."""
    go, got = asyncio.Event(), [0, 0]

    async def app(pool: ClusterPool, connection: Connection) -> None:
        async for message in connection:
            await go.wait()
            got[0] += 1
            got[1] += len(message)

    megabyte, node_bytes = 1_000_000, (64 if room else 1) * 1024 * 1024
    limits = Limits(node_inbound_bytes=node_bytes)
    async with (
        node(own_server, limits, app=app, compression=True) as (_, server, most),
        connect(url(server, "a"), compression="deflate") as client,
        connect(url(server, "b"), compression="deflate") as other,
    ):
        for one in (client, other):
            one.transport.write(inflating(megabyte) * 40)
        await eventually(lambda: most[0] > megabyte)
        await asyncio.sleep(0.2)
        assert most[0] <= 2 * 5 * megabyte
        go.set()
        await eventually(lambda: got == [80, 80 * megabyte], 30)
        assert most[0] <= 2 * 5 * megabyte
        await client.send("small")
        await eventually(lambda: got[0] == 81)
