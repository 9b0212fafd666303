"""The ``websockets`` library: prebuilt frames straight to the socket, where nothing is in the way.

A frame is written past the library only at the server's end (a client has to mask it), while its
protocol is open, no extension is negotiated, no fragmented message is in progress and the socket is
not closing; each of its own writes is flushed before it awaits anything, so a whole frame cannot
split a ping, a pong or a close. While nothing waits in the event loop for the socket, a frame may
go past the loop as well: see ``descriptor``.
"""

import asyncio
import os
from asyncio import Transport
from typing import Final

from websockets.asyncio.connection import Connection as WebSocket
from websockets.exceptions import ConcurrencyError, ConnectionClosed
from websockets.frames import Frame
from websockets.protocol import CLOSED, CONNECTING, OPEN, SERVER

from cluster_pool.core.closing import ABNORMAL
from cluster_pool.core.message import Message, Outgoing
from cluster_pool.core.request import Request
from cluster_pool.exceptions import AlreadyReadError
from cluster_pool.transports.base import Ahead, Reading, TransportClosed, Watcher, refusal_close
from cluster_pool.transports.queued import SendQueue
from cluster_pool.transports.unread import Unread

LOOKS: Final = 4
"""At a client that was asked for a sign of life, before there is none."""


class WebsocketsTransport(SendQueue):
    """A connection of ``websockets.asyncio``, of a server or a client."""

    __slots__ = (
        "_descriptor",
        "_protocol",
        "_received",
        "_tcp",
        "_unread",
        "_websocket",
        "_written",
    )

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__()
        self._websocket = websocket
        self._protocol = websocket.protocol
        self._tcp = websocket.transport
        self._descriptor: int | None = None
        self._written = 0
        self._received = 0
        self._unread: Unread | None = None

    def descriptor(self) -> int:
        """See :class:`Transport`.

        Once the protocol is open, it is so until a close is sent or the socket begins to close.
        ``state`` says the same, but it is a property, and to ask it takes 2 % of a broadcast.
        """
        protocol, tcp = self._protocol, self._tcp
        if (
            protocol.close_sent is not None
            or tcp.is_closing()
            or tcp.get_write_buffer_size()
            or self._websocket.send_in_progress is not None
            or self._task is not None
        ):
            return -1
        if self._descriptor is None:
            if protocol.state is not OPEN:
                return -1
            self._descriptor = _descriptor_of(tcp) if self._takes_frames() else -1
        return self._descriptor

    def write(self, outgoing: Outgoing, taken: int = 0) -> int:
        """See :class:`Transport`."""
        tcp = self._tcp
        if self._protocol.state is not OPEN or tcp.is_closing():
            return -1
        if taken or (
            self._task is None and self._websocket.send_in_progress is None and self._takes_frames()
        ):
            frame = outgoing.frame[taken:]
            self._written += len(frame)
            tcp.write(frame)
            return tcp.get_write_buffer_size()
        return self._write_through_library(outgoing)

    def _takes_frames(self) -> bool:
        """Whether the library would write the very bytes that we have; known once it is open."""
        return self._protocol.side is SERVER and not self._protocol.extensions

    def _write_through_library(self, outgoing: Outgoing) -> int:
        if self._task is not None or self._websocket.send_in_progress is not None:
            self.enqueue(outgoing)
            return self.buffered()
        for part in outgoing.parts:
            if part.text:
                self._protocol.send_text(part.payload)
            else:
                self._protocol.send_binary(part.payload)
        for data in self._protocol.data_to_send():
            self._written += len(data)
            self._tcp.write(data)
        return self._tcp.get_write_buffer_size()

    def buffered(self) -> int:
        """See :class:`Transport`."""
        return self._tcp.get_write_buffer_size() + self._queued

    def taken(self) -> int:
        """See :class:`Transport`; what went past the loop never waited, and does not count."""
        return self._written - self._tcp.get_write_buffer_size() + self._sent

    def request(self) -> Request:
        """See :class:`Transport`."""
        request, peer = self._websocket.request, self._tcp.get_extra_info("peername")
        if request is None:
            return Request()
        client = peer[0] if isinstance(peer, tuple) else None
        return Request.of_target(request.path, request.headers.raw_items(), client)

    def is_answered(self) -> bool:
        """See :class:`Transport`."""
        return True

    def is_closed(self) -> bool:
        """See :class:`Transport`."""
        return self._protocol.state is CLOSED

    def close(self, code: int, reason: str) -> None:
        """See :class:`Transport`."""
        if self._task is not None or self._websocket.send_in_progress is not None:
            self.enqueue_close(code, reason)
        elif self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._websocket.send_data()

    def abort(self) -> None:
        """See :class:`Transport`."""
        self.drop()
        self._tcp.abort()

    def ignore_incoming(self) -> None:
        """See :class:`Transport`; else the library stops reading when its queue is full."""
        messages = self._websocket.recv_messages
        messages.put = _drop  # type: ignore[method-assign]  # this one hears nothing any more
        if messages.frames.get_waiter is None:
            messages.frames.queue.clear()
        ignore = getattr(self._websocket, "ignore", None)
        if ignore is not None:  # one of ours, with a flow control of its own
            ignore()
        elif not self._tcp.is_closing():
            messages.maybe_resume()

    def watch(self, watcher: Watcher, ahead: Ahead) -> None:
        """See :class:`Transport`."""
        self._unread = Unread(self._websocket, watcher, ahead)

    async def unwatch(self, watcher: Watcher) -> None:
        """See :class:`Transport`."""
        if self._unread is not None:
            self._unread.end()
            self._unread = None

    def reading(self) -> Reading:
        """See :class:`Transport`."""
        return Reading.UNTOUCHED if self._unread is None else self._unread.reading()

    async def accept(self, subprotocol: str | None) -> None:
        """The library has answered the handshake by itself."""

    async def refuse(self, status: int, text: str) -> None:
        """See :class:`Transport`."""
        self.close(*refusal_close(status, text))

    async def alive(self, within: float) -> bool:
        """See :class:`Transport`.

        It is looked several times, so that a loop that stood still has read what came meanwhile.
        """
        before, waited = self._signs()
        asking = asyncio.create_task(self._ask())
        try:
            for _ in range(LOOKS):
                await asyncio.wait((asking,), timeout=within / LOOKS)
                if self._protocol.state is CLOSED:
                    return False
                now, waits = self._signs()
                moved = now != before or (waited is not None and waits != waited)
                if asking.done() or moved or not self._tcp.is_reading():
                    return True
            return self._protocol.state is CONNECTING  # the handshake is not answered yet
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ask(self) -> None:
        """Wait for the answer to a ping, for ever if nothing comes."""
        try:
            await (await self._websocket.ping())
        except ConnectionClosed:
            await asyncio.Event().wait()

    def _signs(self) -> tuple[tuple[int, int], int | None]:
        """What changes while a client sends; and while it takes what waited, if anything does."""
        sent = self._received, len(self._protocol.reader.buffer)
        return sent, self.taken() if self.buffered() else None

    async def wait_closed(self) -> None:
        """See :class:`Transport`."""
        await self._websocket.wait_closed()

    async def receive(self) -> Message:
        """See :class:`Transport`."""
        if self._unread is not None:
            self._unread.own = True
        try:
            message = await self._websocket.recv()
        except ConcurrencyError as error:
            raise AlreadyReadError(f"the WebSocket cannot be read: {error}") from error
        except ConnectionClosed as closed:
            frame = closed.rcvd if closed.rcvd_then_sent else closed.sent
            if frame is None or closed.rcvd is None:
                raise TransportClosed(ABNORMAL) from closed
            raise TransportClosed(int(frame.code), frame.reason) from closed
        self._received += 1
        return message

    async def _send_now(self, outgoing: Outgoing) -> None:
        await self._websocket.send(outgoing.message)

    async def _close_now(self, code: int, reason: str) -> None:
        while self._websocket.send_in_progress is not None:
            await self._websocket.send_in_progress
        if self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._websocket.send_data()


def _drop(frame: Frame) -> None:
    """Of a client that nobody listens to any more."""


def _descriptor_of(tcp: Transport) -> int:
    """The socket's, where bytes may be written to it as they are: not under TLS, nor on Windows."""
    if os.name != "posix" or tcp.get_extra_info("sslcontext") is not None:
        return -1
    socket = tcp.get_extra_info("socket")
    return -1 if socket is None else int(socket.fileno())
