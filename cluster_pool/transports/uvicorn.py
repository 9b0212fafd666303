"""A WebSocket protocol for uvicorn, behind which frames are written as directly as in ``serve``.

It is uvicorn's own sans-I/O protocol, and puts itself into the extensions of the ASGI scope. The
transport of a Starlette WebSocket finds it there. All other WebSockets of an application behave as
with uvicorn's own.
"""

import asyncio
import logging
from importlib.metadata import version
from typing import Any, Final

from websockets.protocol import OPEN
from websockets.protocol import Protocol as WebSocketProtocol

from cluster_pool.transports.asgi_servers import EXTENSION
from cluster_pool.transports.base import Heard, Outbox
from cluster_pool.transports.deflate import SHARED
from cluster_pool.transports.fed import NO_STATUS
from cluster_pool.transports.frames import write_ahead
from cluster_pool.transports.kept import DISCONNECT
from cluster_pool.transports.rounds import Round
from cluster_pool.transports.uvicorn_fit import missing, stored
from cluster_pool.transports.uvicorn_reading import ReadingProtocol

log = logging.getLogger("cluster_pool.transports")

NAMES: Final = {
    name: name
    for name in (
        *(b"host", b"upgrade", b"connection", b"origin", b"user-agent", b"accept", b"cookie"),
        *(b"accept-language", b"accept-encoding", b"pragma", b"cache-control"),
        *(b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-extensions"),
        *(b"sec-websocket-protocol", b"x-forwarded-for", b"x-forwarded-proto"),
        *(b"sec-fetch-dest", b"sec-fetch-mode", b"sec-fetch-site"),
    )
}
"""Names of headers, of which one object each is enough for all requests."""
UNREAD: Final = 65536
"""Bytes waiting to be written, from which on the outbox of a client that sends pings is checked."""


ALWAYS: Final = asyncio.Event()
"""In the place of the event of each protocol, which takes a kilobyte, while it may write."""
ALWAYS.set()


class DirectProtocol(ReadingProtocol):
    """See the module; one object for each WebSocket.

    Attributes:
        per_message_deflate: whether compression is agreed to; see :mod:`.deflate`.
        foreign: bytes that the framework's own sends have left in the buffer, at most.
        gone: whether the socket is gone.
        heard: gets the payloads of pongs.
        outboxes: those of the connections of ours, which write before uvicorn does.
        pongs: how many pongs came.
        send_in_progress: None: uvicorn sends no message in fragments.
    """

    __slots__ = (*sorted(stored()), "_gone", "foreign", "gone", "heard", "outboxes", "pongs")

    per_message_deflate = False
    send_in_progress = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        compress = self.per_message_deflate and self.config.ws_per_message_deflate
        self.conn.available_extensions = [SHARED] if compress else None
        self.writable = ALWAYS
        self.outboxes: tuple[Outbox, ...] = ()
        self.gone = False
        self.heard: Heard | None = None
        self.foreign = self.pongs = 0
        self._gone: asyncio.Future[None] | None = None

    def __deepcopy__(self, memo: object) -> "DirectProtocol":
        """Itself: a copy of a scope is of the same WebSocket."""
        return self

    # -- for the transport -----------------------------------------------------------------

    def opened(self) -> None:
        """Drop what only the handshake needs: requests take kilobytes."""
        conn = self.conn
        if conn.state is not OPEN:
            return
        self.request = self.response = None  # type: ignore[assignment]  # uvicorn needs them no more
        if not conn.reader.buffer and _is_between_frames(conn.parser):
            conn.parser = WebSocketProtocol.parse(conn)
            next(conn.parser)

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake now, behind what was written, however much that is.

        Uvicorn drops the messages of a client that it has sent a close to; a feed gets them.
        """
        writable, self.writable = self.writable, ALWAYS
        feed = self.feed
        if feed is not None:
            feed.closing = True
        closing = self.send({"type": "websocket.close", "code": code, "reason": reason})
        try:
            closing.send(None)
        except (StopIteration, OSError, RuntimeError):
            pass
        finally:
            closing.close()
            self.writable = writable
            if feed is not None:
                feed.closed, feed.closing = self.close_sent, False
                self.close_sent, self.read_paused = False, True
                feed.read_to_the_answer()

    def ping(self) -> None:
        """Send a ping; each pong is counted."""
        if self.conn.state is OPEN and not self.transport.is_closing():
            self.conn.send_ping(b"")
            self.transport.write(b"".join(self.conn.data_to_send()))

    async def wait_gone(self) -> None:
        """Wait until the socket is gone."""
        if not self.gone:
            if self._gone is None:
                self._gone = self.loop.create_future()
            await asyncio.shield(self._gone)

    # -- writes and ends -------------------------------------------------------------------

    def write_pending(self) -> None:
        """Write what was sent before: uvicorn is about to write something by itself."""
        for outbox in self.outboxes:
            outbox.write_pending()

    def _tell_lost(self) -> None:
        """The socket will end, perhaps much later: connections of ours have lost it now."""
        if self.outboxes or self.feed is not None:
            self.queue.put_nowait({"type": DISCONNECT, "code": NO_STATUS})

    # -- uvicorn's own ---------------------------------------------------------------------

    def handle_connect(self, event: Any) -> None:
        """The request came: the application begins in a later turn of the loop."""
        super().handle_connect(event)
        scope = getattr(self, "scope", None)
        if scope is not None:
            scope["extensions"][EXTENSION] = self
            scope["headers"] = [(NAMES.get(name, name), value) for name, value in scope["headers"]]

    def schedule_ping(self) -> None:
        """A timer of its own takes half a kilobyte of each connection."""
        interval = self.ping_interval or 0.0
        delay = max(0.0, interval - self.last_ping_rtt)
        self.ping_timer = due = Round.after(self.loop, delay, interval)  # type: ignore[assignment]
        due.add(self)

    def stop_keepalive(self) -> None:
        """No ping is sent any more."""
        if isinstance(self.ping_timer, Round):
            self.ping_timer.discard(self)
        super().stop_keepalive()

    def keepalive_timeout(self) -> None:
        """No pong came in time; a socket that is full does not end by uvicorn's close."""
        self.write_pending()
        super().keepalive_timeout()
        if self.transport.is_closing():
            self._tell_lost()

    def handle_ping(self) -> None:
        """A ping came, and is answered; its client may read none of the answers."""
        answers = bool(self.conn.writes)
        super().handle_ping()
        if answers and self.transport.get_write_buffer_size() > UNREAD:
            for outbox in self.outboxes:
                outbox.check_limit()

    def handle_close(self, event: Any) -> None:
        """The client closes: the answer goes behind what was sent."""
        write_ahead(self.conn, self.write_pending)
        super().handle_close(event)

    def handle_parser_exception(self) -> None:
        """The client breaks the protocol: the Close goes behind what was sent."""
        write_ahead(self.conn, self.write_pending)
        super().handle_parser_exception()

    def handle_pong(self, event: Any) -> None:
        """A pong came."""
        self.pongs += 1
        if self.heard is not None and self.heard(bytes(event.data)):
            return
        super().handle_pong(event)

    async def send(self, message: Any) -> None:
        """ASGI's: what was sent by a connection of ours before goes first.

        When uvicorn stops it refuses the handshakes that are not answered, with 500. It would raise
        if the application then answers one.
        """
        if self.conn.eof_sent and not self.handshake_complete:
            return
        self.write_pending()
        await super().send(message)
        waiting = self.transport.get_write_buffer_size()
        self.foreign = waiting if waiting > UNREAD else 0
        self.read_on()

    def shutdown(self) -> None:
        """Uvicorn stops; it would raise if the client has closed and its socket has not ended."""
        self.write_pending()
        if self.handshake_complete and self.conn.state is not OPEN:
            self.stop_keepalive()
            self.transport.close()
        else:
            super().shutdown()

    def eof_received(self) -> None:
        """The client has ended the stream, but reads on until the transport has closed.

        A loop reads between the turn in which messages are put into an outbox and the next one.
        """
        self.write_pending()
        super().eof_received()
        self._tell_lost()

    def pause_writing(self) -> None:
        """The buffer is full: uvicorn's ``send`` waits, while frames of ours do not."""
        if self.writable is ALWAYS:
            self.writable = asyncio.Event()

    def resume_writing(self) -> None:
        """There is room again."""
        self.writable.set()
        self.writable = ALWAYS
        self.foreign = 0

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone."""
        self.gone = True
        super().connection_lost(exc)
        self.resume_writing()
        self.outboxes = ()
        self.conn.parser.close()  # it is in a cycle with the state of the WebSocket
        if self._gone is not None and not self._gone.done():
            self._gone.set_result(None)

    def on_task_complete(self, task: "asyncio.Task[None]") -> None:
        """The application has returned: end the cycle between scope and protocol."""
        super().on_task_complete(task)
        self.scope["extensions"].pop(EXTENSION, None)


class DeflatingProtocol(DirectProtocol):
    """The same with compression for the clients that offer it."""

    __slots__ = ()

    per_message_deflate = True


def _is_between_frames(parser: Any) -> bool:
    """Whether the parser of ``websockets`` waits for the first byte of a frame."""
    while parser.gi_yieldfrom is not None:
        parser = parser.gi_yieldfrom
    return bool(parser.gi_code.co_name == "at_eof")


def _chosen() -> tuple[Any, Any]:
    lacking = missing()
    if not lacking:
        return DirectProtocol, DeflatingProtocol
    log.warning(
        "uvicorn %s does not fit cluster_pool.uvicorn (it lacks %s): "
        "its own protocol is used, and frames go the ordinary way",
        version("uvicorn"),
        ", ".join(lacking),
    )
    from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol  # deprecated parts

    return AutoWebSocketsProtocol, AutoWebSocketsProtocol


Protocol, CompressingProtocol = _chosen()
