"""Starlette and FastAPI behind our protocol of uvicorn: frames go past ASGI to the socket.

The way is taken only if nothing between the application and uvicorn can tell: a middleware that
wraps ``send`` gets every message, by the ordinary way, and one that wraps ``receive`` likewise.
"""

import asyncio
import logging
from typing import Final

from starlette.websockets import WebSocket, WebSocketState
from websockets.protocol import OPEN

from cluster_pool.core.closing import ABNORMAL
from cluster_pool.core.message import Message
from cluster_pool.exceptions import AlreadyReadError
from cluster_pool.transports.asgi_servers import EXTENSION, REFUSED_WITHIN
from cluster_pool.transports.base import Ahead, Heard, Outbox, Transport, TransportClosed, Writer
from cluster_pool.transports.fed import Fed
from cluster_pool.transports.frames import FrameWriter
from cluster_pool.transports.kept import DISCONNECT, Kept, Receive
from cluster_pool.transports.queued import SendQueue
from cluster_pool.transports.starlette import StarletteBase, StarletteTransport, sends_plainly
from cluster_pool.transports.uvicorn import DirectProtocol
from cluster_pool.transports.wrappers import innermost, name_of

LOOKS: Final = 4
"""How often a client is looked at, after a ping, before it counts as dead."""

log = logging.getLogger("cluster_pool.transports")


class Logged:
    """Log lines that this process writes only once."""

    wrappers: set[str] = set()  # noqa: RUF012  # grows


def starlette_transport(websocket: WebSocket) -> Transport:
    """The direct transport if it can be had, else the ordinary one."""
    protocol = websocket.scope.get("extensions", {}).get(EXTENSION)
    if not isinstance(protocol, DirectProtocol):
        return StarletteTransport(websocket)
    send = innermost(websocket._send)
    if _is_method(send, protocol, "send") and sends_plainly(websocket):
        return UvicornTransport(websocket, protocol)
    name = name_of(send) if sends_plainly(websocket) else name_of(type(websocket))
    if name not in Logged.wrappers:
        Logged.wrappers.add(name)
        log.info("%s wraps what is sent: frames go the ordinary way, through it (said once)", name)
    return StarletteTransport(websocket)


def _is_method(method: object, protocol: DirectProtocol, name: str) -> bool:
    of = getattr(method, "__self__", None)
    return of is protocol and getattr(method, "__func__", None) is getattr(DirectProtocol, name)


class UvicornWriter(FrameWriter[DirectProtocol]):
    """A writer beside which the framework sends: a message of its may be larger than an outbox."""

    __slots__ = ()

    def buffered(self) -> int:
        """See :class:`Writer`: its bytes, of which one stands for those of the framework."""
        waiting = super().buffered()
        return max(1, waiting - self._library.foreign) if waiting else 0


class UvicornTransport(StarletteBase):
    """A Starlette WebSocket whose frames are written past ASGI."""

    __slots__ = ("_protocol", "_writer")

    def __init__(self, websocket: WebSocket, protocol: DirectProtocol) -> None:
        super().__init__(websocket)
        self._protocol = protocol
        self._writer = UvicornWriter(protocol.transport, protocol.conn, protocol, _no_queue)
        if self.is_answered():
            protocol.opened()

    @property
    def writer(self) -> Writer:
        """See :class:`Transport`."""
        return self._writer

    def write_behind(self, outbox: Outbox) -> None:
        """See :class:`Transport`."""
        if not self._protocol.gone:  # else nothing would end the cycle
            self._protocol.outboxes += (outbox,)

    def is_closed(self) -> bool:
        """See :class:`Transport`."""
        return self._protocol.gone

    def close(self, code: int, reason: str) -> None:
        """See :class:`Transport`; to Starlette it is as if its own ``close`` was called."""
        if self._closing or self._websocket.application_state is not WebSocketState.CONNECTED:
            return
        self._closing = True
        self._websocket.application_state = WebSocketState.DISCONNECTED
        if self._protocol.conn.state is OPEN:
            self._protocol.close(code, reason)

    def abort(self) -> None:
        """See :class:`Transport`."""
        self._protocol.transport.abort()

    async def accept(self, subprotocol: str | None) -> None:
        """See :class:`Transport`."""
        await super().accept(subprotocol)
        self._protocol.opened()

    async def _until_refused(self) -> None:
        """Uvicorn logs an error if the application returns before the socket is closed."""
        await asyncio.wait(
            (asyncio.ensure_future(self._protocol.wait_gone()),), timeout=REFUSED_WITHIN
        )

    def hears_pongs(self) -> bool:
        """See :class:`Transport`."""
        return True

    def ping(self, payload: bytes, heard: Heard) -> None:
        """See :class:`Transport`."""
        self._protocol.heard = heard
        self._writer.ping(payload)

    def close_answer(self) -> int | None:
        """See :class:`Transport`."""
        return self._writer.close_answer()

    async def alive(self, within: float) -> bool:
        """See :class:`Transport`.

        It looks several times, so that a loop that stood still reads what has come meanwhile.
        """
        protocol, (before, waited) = self._protocol, self._signs()
        protocol.ping()
        for _ in range(LOOKS):
            await asyncio.sleep(within / LOOKS)
            if protocol.gone:
                return False
            now, waits = self._signs()
            moved = now != before or (waited is not None and waits != waited)
            if moved or not protocol.transport.is_reading():
                return True
        return protocol.conn.state is not OPEN and protocol.conn.close_sent is None

    def _signs(self) -> tuple[tuple[int, int, int], int | None]:
        """Numbers that change while a client sends, and while it reads (None if nothing waits)."""
        protocol, writer = self._protocol, self._writer
        feed = protocol.feed
        sent = protocol.pongs, feed.received if feed else 0, len(protocol.conn.reader.buffer)
        return sent, writer.bytes_written() if writer.buffered() else None

    async def wait_close_begun(self) -> None:
        """See :class:`Transport`: a close is written at once."""

    async def wait_closed(self) -> None:
        """See :class:`Transport`."""
        await self._protocol.wait_gone()

    async def receive(self) -> Message:
        """See :class:`Transport`; it takes an event as it is kept, without Starlette's methods."""
        ahead = self._ahead
        if not isinstance(ahead, Fed) or self._over is not None:
            return await super().receive()
        self.check_sending()
        ahead.own = True
        try:
            event = await ahead.next()
        except RuntimeError as error:
            raise AlreadyReadError(f"the WebSocket cannot be read: {error}") from error
        finally:
            ahead.own = False
        if event["type"] == DISCONNECT:
            self._websocket.client_state = WebSocketState.DISCONNECTED
            self._over = event.get("code") or ABNORMAL, event.get("reason") or ""
            raise TransportClosed(*self._over)
        text: Message | None = event.get("text")
        return event["bytes"] if text is None else text

    def _keep_events(self, receive: Receive, ahead: Ahead) -> Kept:
        protocol = self._protocol
        if protocol.feed is not None:  # another WebSocket was made of this scope
            return protocol.feed
        if protocol.is_read or not _is_method(receive, protocol, "receive"):
            return super()._keep_events(receive, ahead)
        feed = Fed(protocol, ahead)
        protocol.attach(feed)
        return feed


def _no_queue(protocol: DirectProtocol) -> SendQueue:
    raise AssertionError("no message waits for another: uvicorn sends none in fragments")
