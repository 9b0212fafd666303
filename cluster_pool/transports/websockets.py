"""The ``websockets`` library, at a server's end or a client's: its asyncio connections."""

import asyncio
from functools import partial
from typing import Any, Final
from weakref import ref

from websockets.asyncio.connection import Connection as WebSocket
from websockets.exceptions import ConcurrencyError, ConnectionClosed
from websockets.protocol import CLOSED, CONNECTING, OPEN

from cluster_pool.core.closing import ABNORMAL
from cluster_pool.core.message import Message, Outgoing
from cluster_pool.core.request import Request
from cluster_pool.exceptions import AlreadyReadError, ClusterPoolError
from cluster_pool.transports.base import (
    Ahead,
    Heard,
    Outbox,
    Reading,
    TransportClosed,
    Watcher,
    Writer,
    refusal_close,
)
from cluster_pool.transports.frames import FrameWriter
from cluster_pool.transports.queued import SendQueue
from cluster_pool.transports.unread import Unread, ignore_incoming

LOOKS: Final = 4
"""How often a client is looked at, after a ping, before it counts as dead."""


class WebsocketsTransport:
    """A connection of ``websockets.asyncio``, of a server or a client."""

    __slots__ = ("_heard", "_protocol", "_received", "_tcp", "_unread", "_websocket", "_writer")

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._protocol = websocket.protocol
        self._tcp = websocket.transport
        self._writer = FrameWriter(self._tcp, self._protocol, websocket, _queue_of)
        self._heard: Heard | None = None
        self._received = 0
        self._unread: Unread | None = None

    @property
    def writer(self) -> Writer:
        """See :class:`Transport`."""
        return self._writer

    def write_behind(self, outbox: Outbox) -> None:
        """See :class:`Transport`: ahead of what the library's own methods write."""
        websocket: Any = self._websocket
        if type(websocket).send_context is not WebSocket.send_context:
            return  # a server's own, which knows its members
        if not isinstance(websocket.send_context, ContextBehind):
            websocket.send_context = ContextBehind(websocket)
        websocket.send_context.outboxes.append(outbox)

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
        if self._writer.in_use():
            self._writer.queue().enqueue_close(code, reason)
        elif self._protocol.state is OPEN:
            self._protocol.send_close(code, reason)
            self._websocket.send_data()

    def abort(self) -> None:
        """See :class:`Transport`."""
        self._writer.drop()
        self._tcp.abort()

    def ignore_incoming(self) -> None:
        """See :class:`Transport`; else the library stops reading when its queue is full."""
        ignore_incoming(self._websocket)

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

    def check_sending(self) -> None:
        """See :class:`Transport`: the library has answered the handshake."""

    async def accept(self, subprotocol: str | None) -> None:
        """See :class:`Transport`: the library has answered the handshake."""

    async def refuse(self, status: int, text: str) -> None:
        """See :class:`Transport`."""
        self.close(*refusal_close(status, text))

    def hears_pongs(self) -> bool:
        """See :class:`Transport`."""
        return True

    def ping(self, payload: bytes, heard: Heard) -> None:
        """See :class:`Transport`; the library's own ``ping`` is awaited, and makes a future."""
        websocket: Any = self._websocket
        if self._heard != heard:
            self._heard = heard
            websocket.acknowledge_pings = partial(_acknowledge, ref(websocket), heard)
        self._writer.ping(payload)

    def close_answer(self) -> int | None:
        """See :class:`Transport`."""
        return self._writer.close_answer()

    def closing_of(self, error: Exception) -> tuple[int, str] | None:
        """See :class:`Transport`: no error asks for a code."""
        return None

    async def alive(self, within: float) -> bool:
        """See :class:`Transport`.

        It looks several times, so that a loop that stood still reads what has come meanwhile.
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
        """Wait for the answer to a ping, for ever if none comes."""
        try:
            await (await self._websocket.ping())
        except ConnectionClosed:
            await asyncio.Event().wait()

    def _signs(self) -> tuple[tuple[int, int], int | None]:
        """Numbers that change while a client sends, and while it reads (None if nothing waits)."""
        writer = self._writer
        sent = self._received, len(self._protocol.reader.buffer)
        return sent, writer.bytes_written() if writer.buffered() else None

    async def wait_closed(self) -> None:
        """See :class:`Transport`."""
        await self._websocket.wait_closed()

    async def wait_close_begun(self) -> None:
        """See :class:`Transport`."""
        await self._writer.wait_close_begun()

    def refusal(self, error: ClusterPoolError, status: int, text: str) -> ClusterPoolError:
        """See :class:`Transport`: only the application sees it."""
        return error

    def can_read(self) -> bool:
        """See :class:`Transport`."""
        return True

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


def _acknowledge(websocket: "ref[WebSocket]", heard: Heard, payload: bytes) -> None:
    """Called in place of a WebSocket's own method, of which this is an attribute: no cycle."""
    one: Any = websocket()
    if heard(payload):
        answered = getattr(one, "answered", None)
        if answered is not None:  # one of ours, which counts the frames of its client
            answered()
    elif one is not None:
        type(one).acknowledge_pings(one, payload)


def _queue_of(websocket: WebSocket) -> SendQueue:
    return SendQueue(partial(_send, websocket), partial(_close, websocket))


async def _send(websocket: WebSocket, outgoing: Outgoing) -> None:
    await websocket.send(outgoing.message)


async def _close(websocket: WebSocket, code: int, reason: str) -> None:
    while websocket.send_in_progress is not None:
        await websocket.send_in_progress
    if websocket.protocol.state is OPEN:
        websocket.protocol.send_close(code, reason)
        websocket.send_data()


class ContextBehind:
    """In the place of the method in whose context the library writes: what is pending goes first.

    Attributes:
        outboxes: those of all connections of the WebSocket.
    """

    __slots__ = ("_websocket", "outboxes")

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = ref(websocket)
        self.outboxes: list[Outbox] = []

    def __call__(self, **options: Any) -> Any:
        """See the library."""
        for outbox in self.outboxes:
            outbox.write_pending()
        websocket = self._websocket()
        assert websocket is not None, "it calls this"
        return type(websocket).send_context(websocket, **options)
