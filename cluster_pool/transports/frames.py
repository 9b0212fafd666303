"""Writes prebuilt frames to a socket, past the library that owns it, when that is safe.

A server's uncompressed frame is the same bytes for every recipient, so it is built once and written
to each. A library's own writes (a ping, a pong, a close) are flushed before it awaits anything, so
a whole frame cannot split them. That is true for every server that uses the sans-I/O protocol of
``websockets`` and writes to an asyncio transport: its own asyncio server, and uvicorn's protocols.

Owns the knowledge of that protocol and of asyncio's transports. The callers decide what is written,
and what happens to a client that does not read.
"""

import asyncio
import os
from asyncio import Transport
from collections.abc import Callable
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from websockets.protocol import OPEN, SERVER
from websockets.protocol import Protocol as WebSocketProtocol

from cluster_pool.core.message import Outgoing
from cluster_pool.transports.deflate import shared_window
from cluster_pool.transports.queued import SendQueue


class Library(Protocol):
    """A library's own WebSocket object, as far as it may be in the middle of a message."""

    @property
    def send_in_progress(self) -> "asyncio.Future[None] | None":
        """Not None while a message is sent in fragments, between which no other may be sent."""


L = TypeVar("L", bound=Library)
CLOSE_FRAME: Final = b"\x88"
"""The first byte of a Close (RFC 6455 section 5.2)."""


PING: Final = b"\x89"
"""The first byte of a Ping (RFC 6455 section 5.5.2)."""


def ping_frame(payload: bytes) -> bytes:
    """A server's ping: never compressed, and it may stand between the fragments of a message."""
    return PING + bytes((len(payload),)) + payload


class FrameWriter(Generic[L]):
    """The writing side of a WebSocket whose asyncio transport and protocol state are known.

    Args:
        tcp: the asyncio transport that the library writes to.
        protocol: the state of the WebSocket.
        library: tells whether a fragmented message is being sent.
        make_queue: makes a queue that sends by the library's own methods; called on first need,
            when a message has to wait for a fragmented one.
    """

    __slots__ = (
        *("_descriptor", "_library", "_make_queue", "_protocol", "_queue", "_tcp", "_written"),
    )

    def __init__(
        self,
        tcp: Transport,
        protocol: WebSocketProtocol,
        library: L,
        make_queue: Callable[[L], SendQueue],
    ) -> None:
        self._tcp = tcp
        self._protocol = protocol
        self._library = library
        self._make_queue = make_queue
        self._queue: SendQueue | None = None
        self._descriptor: int | None = None
        self._written = 0

    def descriptor(self) -> int:
        """File descriptor to write a frame to directly, or -1 if that is unsafe now.

        It is safe if no close was sent, the transport is not closing and its buffer is empty,
        nothing is being sent in fragments or by the library's own methods, and the library would
        write the same bytes. Once the protocol is open, it stays open until a close is sent or the
        transport begins to close; ``state`` says the same, but it is a property, and reading it
        costs 2 % of a broadcast.
        """
        tcp = self._tcp
        if (
            self._protocol.close_sent is not None
            or tcp.is_closing()
            or tcp.get_write_buffer_size()
            or self._library.send_in_progress is not None
            or (self._queue is not None and self._queue.busy)
        ):
            return -1
        if self._descriptor is None:
            if self._protocol.state is not OPEN:
                return -1
            self._descriptor = _descriptor_of(tcp) if self._same_bytes() else -1
        return self._descriptor

    def write(self, outgoing: Outgoing, written: int = 0) -> int:
        """Write by the transport; see :class:`Writer`."""
        tcp = self._tcp
        if self._protocol.state is not OPEN or tcp.is_closing():
            return -1
        if not written:
            if self.in_use():
                self.queue().enqueue(outgoing)
                return self.buffered()
            if not self._same_bytes():
                self._write_encoded(outgoing)
                return tcp.get_write_buffer_size()
        frame = outgoing.frame[written:]
        self._written += len(frame)
        tcp.write(frame)
        return tcp.get_write_buffer_size()

    def in_use(self) -> bool:
        """Whether the library is sending by its own methods: further messages must wait for it."""
        busy = self._queue is not None and self._queue.busy
        return busy or self._library.send_in_progress is not None

    def queue(self) -> SendQueue:
        """The queue that sends by the library's own methods, one message after another."""
        if self._queue is None:
            self._queue = self._make_queue(self._library)
        return self._queue

    def ping(self, payload: bytes) -> None:
        """Write a ping behind all messages, also queued ones.

        Nothing if the WebSocket closes, or queued messages were dropped: it would prove them, too.
        """
        queue = self._queue
        if queue is None or not (queue.busy or queue.failed):
            self._write_ping(payload)
        else:
            queue.enqueue_call(partial(self._write_ping, payload))

    def close_answer(self) -> int | None:
        """See :class:`Transport`; None also if queued messages were dropped."""
        protocol, queue = self._protocol, self._queue
        if protocol.close_sent is None or protocol.close_rcvd is None:
            return None
        if protocol.close_rcvd_then_sent or (queue is not None and queue.failed):
            return None
        return int(protocol.close_rcvd.code)

    def _write_ping(self, payload: bytes) -> None:
        protocol, tcp = self._protocol, self._tcp
        if protocol.state is not OPEN or tcp.is_closing():
            return
        if protocol.side is SERVER:
            tcp.write(ping_frame(payload))
            return
        protocol.send_ping(payload)
        for data in protocol.data_to_send():
            tcp.write(data)

    def drop(self) -> None:
        """Drop the queued messages."""
        if self._queue is not None:
            self._queue.drop()

    def buffered(self) -> int:
        """See :class:`Writer`."""
        queued = 0 if self._queue is None else self._queue.queued
        return self._tcp.get_write_buffer_size() + queued

    def bytes_written(self) -> int:
        """See :class:`Writer`; direct writes to the descriptor never wait, and do not count."""
        sent = 0 if self._queue is None else self._queue.sent
        return self._written - self._tcp.get_write_buffer_size() + sent

    async def wait_close_begun(self) -> None:
        """Wait until the library was told of a queued close, or cannot be told any more."""
        if self._queue is not None:
            await self._queue.wait_close_begun()

    def _same_bytes(self) -> bool:
        """Whether the library would write the same bytes as our frames; known once it is open.

        With an extension it would not, nor at the client's end, which masks.
        """
        return self._protocol.side is SERVER and not self._protocol.extensions

    def _write_encoded(self, outgoing: Outgoing) -> None:
        """Write frames that are compressed once for many, or else built by the protocol."""
        window = shared_window(self._protocol.extensions)
        if window and self._protocol.side is SERVER:
            frames = outgoing.compressed(window)
            self._written += len(frames)
            self._tcp.write(frames)
            return
        for part in outgoing.parts:
            if part.text:
                self._protocol.send_text(part.payload)
            else:
                self._protocol.send_binary(part.payload)
        for data in self._protocol.data_to_send():
            self._written += len(data)
            self._tcp.write(data)


def write_ahead(protocol: WebSocketProtocol, write: Callable[[], None]) -> None:
    """Call ``write`` if the protocol has made a Close that is not written yet: it goes behind.

    It is the answer to the Close of a client, or to a frame that violates the protocol. Messages
    may have been sent to the client in the turn of the loop in which that was read.
    """
    if not any(frame.startswith(CLOSE_FRAME) for frame in protocol.writes):
        return
    state, writes, protocol.state, protocol.writes = protocol.state, protocol.writes, OPEN, []
    try:
        write()
    finally:
        protocol.state, protocol.writes = state, writes


def _descriptor_of(tcp: Transport) -> int:
    """The descriptor of the socket, or -1 under TLS and on Windows: no plain bytes go there."""
    if os.name != "posix" or tcp.get_extra_info("sslcontext") is not None:
        return -1
    socket = tcp.get_extra_info("socket")
    return -1 if socket is None else int(socket.fileno())
