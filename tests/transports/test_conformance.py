"""The bytes on the wire, read by a parser that is not the library's."""

import asyncio
import base64
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request
from websockets.protocol import CLOSED, OPEN

from cluster_pool import Connection, ConnectionsPool, Limits, SendResult, Timing
from cluster_pool.local.closing import is_gone
from cluster_pool.local.outbox import begin_close
from cluster_pool.transports.websockets import WebsocketsTransport
from tests.support import async_test, eventually
from tests.transports.frames import BINARY, CLOSE, PING, TEXT, read_frames, read_messages

SIZES = (0, 1, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537, 300_000)
DEFLATE = "permessage-deflate"
HEADERS = 64
"""Bytes for headers: of the frame beyond the limit, of the one written before that is noticed in
the next turn of the loop, and of the close frame behind them."""
LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop]
with contextlib.suppress(ImportError):
    import uvloop

    LOOPS.append(uvloop.new_event_loop)

every_loop = pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__module__.split(".")[0])


class Peer:
    """The client's end of the socket: it reads bytes, and sends nothing unless told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.extensions = ""

    async def shake_hands(self, extension: str) -> None:
        """The opening handshake (RFC 6455 section 4.1)."""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            *("GET / HTTP/1.1", "Host: here", "Upgrade: websocket", "Connection: Upgrade"),
            *(f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"),
            *([f"Sec-WebSocket-Extensions: {extension}"] if extension else []),
        ]
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        assert answer.startswith("HTTP/1.1 101 ")
        self.extensions = answer.lower()

    async def read_to_close(self) -> bytes:
        """Everything up to the end of the close frame, which is then answered."""
        data = b""
        while not self._closed(data):
            more = await self._reader.read(65536)
            assert more, "ended without a close frame"
            data += more
        self.writer.write(b"\x88\x80" + bytes(4))
        self.writer.close()
        return data

    @staticmethod
    def _closed(data: bytes) -> bool:
        if b"\x88" not in data[-127:]:
            return False
        try:
            return any(frame.opcode == CLOSE for frame in read_frames(data))
        except (AssertionError, IndexError):
            return False  # there is more to come


@contextlib.asynccontextmanager
async def wire(
    pool: ConnectionsPool, extension: str = ""
) -> AsyncIterator[tuple[Connection, Peer]]:
    """A member of the pool and the bytes at its other end."""
    ready: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()

    async def handler(websocket: ServerConnection) -> None:
        connection = Connection("1", "n", websocket)
        await pool.new_connection(connection)
        ready.set_result(connection)
        await connection.run()
        await pool.remove_connection(connection)

    compression = "deflate" if extension else None
    async with serve(
        handler, "127.0.0.1", 0, compression=compression, ping_interval=None
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        peer = Peer(*await asyncio.open_connection("127.0.0.1", port))
        try:
            await peer.shake_hands(extension)
            yield await ready, peer
        finally:
            peer.writer.transport.abort()


def run(loop: Callable[[], asyncio.AbstractEventLoop], test: Any) -> None:
    """Run a coroutine on a loop of a kind, within a minute."""
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(asyncio.wait_for(test, 60))


@every_loop
def test_every_length_in_its_shortest_encoding(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Text and binary on both sides of each boundary of the three length encodings."""

    async def test() -> None:
        async with ConnectionsPool() as pool, wire(pool) as (one, peer):
            for size in SIZES:
                await one.send("x" * size)
                await one.send(b"\xff" * size)
                await asyncio.sleep(0)
            closing = asyncio.create_task(one.close())
            frames = list(read_frames(await peer.read_to_close()))
            await closing
        assert [(frame.opcode, len(frame.payload)) for frame in frames[:-1]] == [
            (opcode, size) for size in SIZES for opcode in (TEXT, BINARY)
        ]
        assert all(frame.final and not frame.compressed for frame in frames)
        for frame in frames[:-1]:
            size = len(frame.payload)
            assert frame.length_bytes == (0 if size < 126 else 2 if size < 65536 else 8)
            assert frame.payload == (b"x" if frame.opcode == TEXT else b"\xff") * size

    run(loop, test())


@every_loop
def test_targeted_and_broadcast_interleave_in_order(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Joined messages, single ones, and those that the kernel took in parts: one order."""

    async def test() -> None:
        count = 3000
        async with ConnectionsPool() as pool, wire(pool) as (one, peer):
            reading = asyncio.create_task(peer.read_to_close())
            for number in range(count):
                text = f"{number:06d}".ljust(200 if number % 7 else 3000, ".")
                if number % 3:
                    assert await pool.send("n", "1", text) is SendResult.DELIVERED
                else:
                    assert await pool.broadcast_message("n", text.encode()) == 1
                if number % 11 == 0:
                    await asyncio.sleep(0)
            await one.close(4000, "done")
            messages = list(read_messages(await reading))
        assert messages.pop() == (CLOSE, b"\x0f\xa0done")
        assert [int(payload[:6]) for _, payload in messages] == list(range(count))
        assert [opcode for opcode, _ in messages] == [
            TEXT if number % 3 else BINARY for number in range(count)
        ]

    run(loop, test())


@every_loop
def test_nothing_splits_a_fragmented_message(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """While the application sends fragments, no data frame of ours is among them."""

    async def test() -> None:
        async with ConnectionsPool() as pool, wire(pool) as (one, peer):
            go_on = asyncio.Event()

            async def fragments() -> AsyncIterator[str]:
                yield "frag"
                await go_on.wait()
                yield "ment"

            await one.send("before")
            await asyncio.sleep(0.01)
            sending = asyncio.create_task(one.websocket.send(fragments()))
            await eventually(lambda: one.websocket.send_in_progress)
            await pool.broadcast_message("n", "between")
            await one.send(b"behind")
            await one.websocket.ping(b"any time")
            await asyncio.sleep(0.01)
            go_on.set()
            await sending
            closing = asyncio.create_task(one.close(1000))
            data = await peer.read_to_close()
            await closing
        assert [message for message in read_messages(data) if message[0] < CLOSE] == [
            (TEXT, b"before"),
            (TEXT, b"fragment"),
            (TEXT, b"between"),
            (BINARY, b"behind"),
        ]
        assert (PING, b"any time") in list(read_messages(data))

    run(loop, test())


@every_loop
@pytest.mark.parametrize("how", ["connection", "websocket", "client"])
def test_nothing_follows_a_close_frame(
    loop: Callable[[], asyncio.AbstractEventLoop], how: str
) -> None:
    """Whichever side closes, and whatever is sent meanwhile, the close frame is the last one."""

    async def test() -> None:
        timing = Timing(close=1.0)
        async with ConnectionsPool(timing=timing) as pool, wire(pool) as (one, peer):
            await one.send("first")
            await asyncio.sleep(0.01)
            await one.send("second")
            if how == "connection":
                begin_close(one, 4000, "")
            elif how == "websocket":
                one.websocket.protocol.send_close(4000)
                one.websocket.send_data()
            else:
                peer.writer.write(b"\x88\x82" + bytes(4) + b"\x0f\xa0")
                await eventually(lambda: one.websocket.protocol.close_rcvd)
            await one.send("late")
            await pool.broadcast_message("n", "late")
            data = await peer.read_to_close()
            messages = list(read_messages(data))
            assert messages[-1] == (CLOSE, b"\x0f\xa0")
            assert (TEXT, b"late") not in messages
            assert messages[0] == (TEXT, b"first")
            await eventually(lambda: is_gone(one))

    run(loop, test())


@every_loop
@pytest.mark.parametrize("extension", ["", DEFLATE])
def test_no_descriptor_is_given_before_the_handshake_is_answered(
    loop: Callable[[], asyncio.AbstractEventLoop], extension: str
) -> None:
    """The extensions are not negotiated yet, and the response must come first."""

    async def test() -> None:
        early: list[tuple[WebsocketsTransport, int]] = []

        async def ask(websocket: ServerConnection, request: Request) -> None:
            transport = WebsocketsTransport(websocket)
            early.append((transport, transport.writer.descriptor()))

        compression = "deflate" if extension else None
        async with serve(
            ServerConnection.wait_closed,
            "127.0.0.1",
            0,
            process_request=ask,
            compression=compression,
        ) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            peer = Peer(*await asyncio.open_connection("127.0.0.1", port))
            await peer.shake_hands(extension)
            ((transport, descriptor),) = early
            assert descriptor == -1
            await eventually(lambda: transport._protocol.state is OPEN)
            assert (transport.writer.descriptor() > 0) is not bool(extension)
            peer.writer.transport.abort()

    run(loop, test())


WAYS_OUT: dict[str, Callable[[Connection, asyncio.Transport], object]] = {
    "ours-close": lambda one, peer: asyncio.ensure_future(one.websocket.close()),
    "ours-abort": lambda one, peer: one.websocket.transport.abort(),
    "their-close": lambda one, peer: peer.write(b"\x88\x82" + bytes(4) + b"\x0f\xa0"),
    "their-end": lambda one, peer: peer.write_eof(),
    "their-fault": lambda one, peer: peer.write(b"\x81\x02hi"),
    "their-reset": lambda one, peer: peer.abort(),
}


@every_loop
@pytest.mark.parametrize("leave", WAYS_OUT.values(), ids=WAYS_OUT)
def test_no_descriptor_is_given_once_the_protocol_is_not_open(
    loop: Callable[[], asyncio.AbstractEventLoop],
    leave: Callable[[Connection, asyncio.Transport], object],
) -> None:
    """However it ends: in no later turn of the loop may a frame bypass the library."""

    async def test() -> None:
        async with ConnectionsPool() as pool, wire(pool) as (one, peer):
            transport, protocol = one._transport, one.websocket.protocol
            await eventually(lambda: transport.writer.descriptor() > 0)
            left = leave(one, peer.writer.transport)
            while protocol.state is not CLOSED:
                if protocol.state is not OPEN:
                    assert transport.writer.descriptor() == -1
                    peer.writer.close()
                await asyncio.sleep(0)
            assert transport.writer.descriptor() == -1
            if isinstance(left, asyncio.Future):
                await left

    run(loop, test())


@every_loop
def test_frames_follow_the_negotiated_extension(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """With permessage-deflate the library compresses; without, no frame claims to be compressed."""

    async def test() -> None:
        texts = ["a" * 1000, "b" * 70_000, "", "grüße" * 50]
        for extension in (DEFLATE, ""):
            async with ConnectionsPool() as pool, wire(pool, extension) as (one, peer):
                assert (DEFLATE in peer.extensions) == bool(extension)
                for text in texts:
                    await one.send(text)
                    await pool.broadcast_message("n", text.encode())
                closing = asyncio.create_task(one.close())
                data = await peer.read_to_close()
                await closing
            got = list(read_messages(data))[:-1]
            assert got == [(kind, text.encode()) for text in texts for kind in (TEXT, BINARY)]
            assert any(frame.compressed for frame in read_frames(data)) == bool(extension)

    run(loop, test())


@every_loop
def test_a_client_that_reads_nothing_gets_no_more_than_its_outbox(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """The limit is on bytes that the kernel did not take; a client above it is closed with 1013,
    and every byte that reaches the client up to then is whole and in order."""

    async def test() -> None:
        limit, size = 100_000, 10_000
        limits = Limits(outbox_bytes=limit)
        timing = Timing(close=0.5)
        async with ConnectionsPool(limits=limits, timing=timing) as pool, wire(pool) as (one, peer):
            peer.writer.transport.pause_reading()
            tcp = one.websocket.transport
            sent = 0
            while await pool.broadcast_message("n", (b"%08d" % sent).ljust(size, b".")):
                sent += 1
                await asyncio.sleep(0)
                assert tcp.get_write_buffer_size() <= limit + 2 * size + HEADERS
            assert (one.closed, one.close_code) == (True, 1013)
            assert pool.statistics()["slow_consumers"] == 1
            peer.writer.transport.resume_reading()
            messages = list(read_messages(await peer.read_to_close()))
        assert messages.pop()[1][:2] == (1013).to_bytes(2, "big")
        assert [int(payload[:8]) for _, payload in messages] == list(range(sent))

    run(loop, test())


@async_test
async def test_the_parser_refuses_what_the_rfc_forbids() -> None:
    """Otherwise the tests above would prove nothing."""
    for broken in (
        b"\x81\x80\x00\x00\x00\x00",  # masked
        b"\xb1\x00",  # reserved bits
        b"\x81\x7e\x00\x01x",  # not the shortest length
        b"\x81\x05abc",  # cut off
        b"\x08\x00",  # a control frame in fragments
        b"\x01\x01a\x81\x01b",  # a message within another
        b"\x80\x01a",  # a continuation of nothing
        b"\x01\x01a",  # no end
    ):
        with pytest.raises(AssertionError):
            list(read_messages(broken))
