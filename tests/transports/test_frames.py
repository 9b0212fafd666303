"""``FrameWriter``: frames written past a library, with few demands on it."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from websockets.extensions.base import Extension
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from cluster_pool.core.message import Outgoing
from cluster_pool.transports.direct import write_directly
from cluster_pool.transports.frames import FrameWriter
from cluster_pool.transports.queued import SendQueue
from tests.support import async_test, eventually
from tests.transports.frames import BINARY, TEXT, read_messages

HELLO = Outgoing(True, b"hello")


class Server:
    """A server of another kind than ``websockets.asyncio``: an asyncio transport and a protocol."""

    send_in_progress: asyncio.Future[None] | None = None

    def __init__(self, tcp: asyncio.Transport, peer: socket.socket) -> None:
        self.tcp = tcp
        self.peer = peer
        self.protocol = ServerProtocol(state=OPEN)
        self.by_itself: list[bytes] = []
        self.writer = FrameWriter(tcp, self.protocol, self, Server.make_queue)

    def make_queue(self) -> SendQueue:
        """The queue that sends by the server's own calls."""
        return SendQueue(self._send, self._close)

    async def _send(self, outgoing: Outgoing) -> None:
        if self.send_in_progress is not None:
            await self.send_in_progress
        self.by_itself.append(outgoing.payload)

    async def _close(self, code: int, reason: str) -> None:
        self.by_itself.append(b"closed")


@asynccontextmanager
async def server() -> AsyncIterator[Server]:
    """A server at one end of a pair of sockets."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    tcp, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    try:
        yield Server(cast("asyncio.Transport", tcp), theirs)
    finally:
        tcp.abort()
        theirs.close()


@async_test
async def test_any_server_with_a_transport_and_a_protocol_offers_the_direct_way() -> None:
    """Its descriptor takes a whole frame, and the rest of a partial write follows it."""
    async with server() as one:
        assert not write_directly([("one", one.writer.descriptor(), HELLO)])
        assert one.writer.write(HELLO, written=0) == 0
        assert one.writer.write(Outgoing(False, b"rest"), written=0) == 0
        sent = [(TEXT, b"hello"), (TEXT, b"hello"), (BINARY, b"rest")]
        assert list(read_messages(one.peer.recv(1000))) == sent
        assert one.writer.bytes_written() == len(HELLO.frame) + 6


@async_test
async def test_the_rest_of_a_partial_write_goes_through_the_transport() -> None:
    """The kernel took a part: the rest waits in the transport, and nothing passes it."""
    async with server() as one:
        large = Outgoing(False, os.urandom(4_000_000))
        ((name, outgoing, written),) = write_directly([("one", one.writer.descriptor(), large)])
        assert (name, outgoing) == ("one", large)
        assert 0 < written < len(large.frame)
        assert one.writer.write(outgoing, written) == len(large.frame) - written
        assert one.writer.descriptor() == -1
        one.peer.setblocking(False)
        got = bytearray()
        while len(got) < len(large.frame):
            got += await asyncio.get_running_loop().sock_recv(one.peer, 1_000_000)
        assert list(read_messages(bytes(got))) == [(BINARY, large.payload)]
        assert one.writer.buffered() == 0
        assert one.writer.descriptor() > 0


@async_test
async def test_nothing_is_written_between_fragments() -> None:
    """Messages meanwhile wait in the queue of the server's own calls, and so do later ones."""
    async with server() as one:
        one.send_in_progress = asyncio.get_running_loop().create_future()
        assert one.writer.descriptor() == -1
        assert one.writer.write(HELLO) == HELLO.size
        await asyncio.sleep(0)
        one.send_in_progress.set_result(None)
        one.send_in_progress = None
        assert one.writer.descriptor() == -1
        assert one.writer.write(Outgoing(True, b"next")) == HELLO.size + 4
        await eventually(lambda: not one.writer.in_use())
        assert one.by_itself == [b"hello", b"next"]
        assert one.writer.descriptor() > 0


@async_test
async def test_with_an_extension_the_protocol_builds_the_frames() -> None:
    """Frames built without it would be wrong."""
    async with server() as one:
        one.protocol.extensions = [Extension()]
        one.protocol.extensions[0].encode = lambda frame: frame  # type: ignore[method-assign]
        assert one.writer.descriptor() == -1
        assert one.writer.write(HELLO) == 0
        assert list(read_messages(one.peer.recv(1000))) == [(TEXT, b"hello")]


@async_test
async def test_nothing_is_written_once_a_close_is_sent() -> None:
    """A close frame is the last one."""
    async with server() as one:
        one.protocol.send_close(1000)
        assert (one.writer.descriptor(), one.writer.write(HELLO)) == (-1, -1)


@async_test
async def test_nothing_is_written_once_the_transport_closes() -> None:
    """Its descriptor may be reused at any moment."""
    async with server() as one:
        one.tcp.close()
        assert (one.writer.descriptor(), one.writer.write(HELLO)) == (-1, -1)
