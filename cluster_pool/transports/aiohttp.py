"""aiohttp: a ``web.WebSocketResponse`` and the request that it answers.

aiohttp writes an uncompressed frame to the asyncio transport before it awaits anything, so whole
frames of ours may stand between its own. It tells only a caller of ``receive`` that a client has
left; :mod:`.ahead` calls it.
"""

import asyncio
import functools
from functools import partial
from typing import Any, Final, cast

from aiohttp import WSMsgType, web

from cluster_pool.core.closing import ABNORMAL
from cluster_pool.core.message import Message, Outgoing
from cluster_pool.core.request import Request
from cluster_pool.exceptions import AlreadyReadError, ClusterPoolError, NotAcceptedError
from cluster_pool.transports.ahead import ReadAhead
from cluster_pool.transports.base import (
    Ahead,
    Heard,
    Outbox,
    Reading,
    TransportClosed,
    Watcher,
    Writer,
    headers_of,
    refusal_close,
)
from cluster_pool.transports.behind import Behind
from cluster_pool.transports.frames import _descriptor_of, ping_frame
from cluster_pool.transports.kept import DISCONNECT, MESSAGE, Event
from cluster_pool.transports.queued import SendQueue

DATA: Final = (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.CONTINUATION)


class AiohttpTransport:
    """A WebSocket of aiohttp's server, prepared or not yet.

    A refusal before that is the answer of aiohttp to the error that is raised: the error is its
    HTTPException, too. When we close, aiohttp ends the socket behind its Close.
    """

    __slots__ = (
        *("_ahead", "_answers_pings", "_closing", "_descriptor", "_heard", "_opened", "_outbox"),
        *("_over", "_queue", "_request", "_tcp", "_websocket", "_written"),
    )

    def __init__(self, request: web.BaseRequest, websocket: "web.WebSocketResponse[Any]") -> None:
        self._request = request
        self._websocket = websocket
        self._tcp: asyncio.Transport | None = request.transport
        self._queue = SendQueue(partial(_send, websocket), partial(_close, websocket), steps=True)
        self._opened = asyncio.Event()
        if websocket.prepared:
            self._opened.set()
        self._ahead: ReadAhead | None = None
        self._over: tuple[int, str] | None = None
        self._descriptor: int | None = None
        self._closing = self._answers_pings = False
        self._heard: Heard | None = None
        self._written = 0

    # -- the writing side ------------------------------------------------------------------

    @property
    def writer(self) -> Writer:
        """See :class:`Transport`."""
        return self

    def descriptor(self) -> int:
        """See :class:`Writer`: safe while aiohttp would write the same bytes, and has none left."""
        tcp = self._tcp
        if (
            tcp is None
            or self._closing
            or self._websocket.closed
            or tcp.is_closing()
            or tcp.get_write_buffer_size()
            or self._queue.busy
        ):
            return -1
        if self._descriptor is None:
            if not self._websocket.prepared:
                return -1
            self._descriptor = -1 if self._websocket.compress else _descriptor_of(tcp)
        return self._descriptor

    def write(self, outgoing: Outgoing, written: int = 0) -> int:
        """See :class:`Writer`."""
        tcp, websocket = self._tcp, self._websocket
        if (
            tcp is None
            or self._closing
            or self._queue.failed
            or not websocket.prepared
            or websocket.closed
            or tcp.is_closing()
        ):
            return -1
        if not written and (self._queue.busy or websocket.compress):
            self._queue.enqueue(outgoing)
            return self.buffered()
        frame = outgoing.frame[written:]
        self._written += len(frame)
        tcp.write(frame)
        return tcp.get_write_buffer_size()

    def buffered(self) -> int:
        """See :class:`Writer`."""
        waiting = 0 if self._tcp is None else self._tcp.get_write_buffer_size()
        return waiting + self._queue.queued

    def bytes_written(self) -> int:
        """See :class:`Writer`; direct writes to the descriptor never wait, and do not count."""
        waiting = 0 if self._tcp is None else self._tcp.get_write_buffer_size()
        return self._written + self._queue.sent - waiting

    def write_behind(self, outbox: Outbox) -> None:
        """See :class:`Transport`: ahead of what the methods of aiohttp send."""
        self._outbox = outbox
        if self._websocket.prepared:
            self._send_behind()

    def _send_behind(self) -> None:
        """Put ours in the place of aiohttp's writer, which is there from now on."""
        websocket: Any = self._websocket
        if not isinstance(websocket._writer, WriterBehind):
            websocket._writer = WriterBehind(websocket)
        websocket._writer.add(self._outbox, self._queue)

    def _send_as_before(self) -> None:
        """Nothing more is written: end the cycle through the WebSocket."""
        websocket: Any = self._websocket
        behind = websocket._writer
        if isinstance(behind, WriterBehind) and behind.remove(self._queue):
            websocket._writer = behind.way

    # -- the handshake and the end ---------------------------------------------------------

    def request(self) -> Request:
        """See :class:`Transport`; the client's address is the one that aiohttp has found out."""
        request = self._request
        return Request.of_target(request.raw_path, request.headers.items(), request.remote)

    def is_answered(self) -> bool:
        """See :class:`Transport`."""
        return self._websocket.prepared

    def check_sending(self) -> None:
        """See :class:`Transport`."""
        if not self._websocket.prepared:
            raise NotAcceptedError("await websocket.prepare(request) first, or use pool.accept(…)")

    async def accept(self, subprotocol: str | None) -> None:
        """See :class:`Transport`."""
        if not self._websocket.prepared:
            if subprotocol is not None:
                self._websocket._protocols = (subprotocol,)
            await self._websocket.prepare(self._request)
            self._send_behind()
        self._opened.set()
        await asyncio.sleep(0)  # our reader reads before any other

    async def refuse(self, status: int, text: str) -> None:
        """See :class:`Transport`: before the answer, :meth:`refusal` refuses it."""
        if self._websocket.prepared:
            self.close(*refusal_close(status, text))
            await self.wait_close_begun()

    def refusal(self, error: ClusterPoolError, status: int, text: str) -> ClusterPoolError:
        """See :class:`Transport`: the same object is aiohttp's HTTPException, too."""
        if not self._websocket.prepared:
            as_http(error, status, text)
        return error

    def is_closed(self) -> bool:
        """See :class:`Transport`; a transport that aiohttp closes may have bytes left to write."""
        return (
            self._request.transport is None
            or self._queue.failed
            or self._over is not None
            or (self._ahead is not None and self._ahead.over is not None)
        )

    def close(self, code: int, reason: str) -> None:
        """See :class:`Transport`."""
        if self._websocket.prepared and not self._closing:
            self._closing = True
            self._queue.enqueue_close(code, reason)

    def abort(self) -> None:
        """See :class:`Transport`."""
        self._queue.drop()
        if self._tcp is not None:
            self._tcp.abort()
        if self._ahead is not None:
            self._ahead.lose()

    async def wait_close_begun(self) -> None:
        """See :class:`Transport`."""
        await self._queue.wait_close_begun()

    async def wait_closed(self) -> None:
        """See :class:`Transport`."""
        await self._queue.wait_sent()

    def hears_pongs(self) -> bool:
        """See :class:`Transport`: while all that comes is read here."""
        return self._ahead is not None

    def ping(self, payload: bytes, heard: Heard) -> None:
        """See :class:`Transport`; aiohttp gives pongs only to those who answer pings, too."""
        self._heard = heard
        if self._websocket._autoping:
            self._websocket._autoping, self._answers_pings = False, True
        if self._queue.busy or self._queue.failed:
            self._queue.enqueue_call(partial(self._ping, payload))
        else:
            self._ping(payload)

    def _ping(self, payload: bytes) -> None:
        tcp = self._tcp
        if tcp is not None and not self._closing and not self._websocket.closed:
            frame = ping_frame(payload)
            self._written += len(frame)
            tcp.write(frame)

    def close_answer(self) -> int | None:
        """See :class:`Transport`; aiohttp does not wait for it."""
        return None

    def closing_of(self, error: Exception) -> tuple[int, str] | None:
        """See :class:`Transport`: no error asks for a code."""
        return None

    async def alive(self, within: float) -> bool:
        """See :class:`Transport`; aiohttp keeps pongs to itself, so it is alive until it ends."""
        return not self.is_closed()

    # -- reading ---------------------------------------------------------------------------

    def watch(self, watcher: Watcher, ahead: Ahead) -> None:
        """See :class:`Transport`."""
        self._ahead = ReadAhead(self._event, ahead)
        self._ahead.watch(watcher)

    async def unwatch(self, watcher: Watcher) -> None:
        """See :class:`Transport`."""
        if self._ahead is not None:
            await self._ahead.unwatch(watcher)
            self._send_as_before()
            if self._answers_pings:
                self._websocket._autoping, self._answers_pings = True, False

    def reading(self) -> Reading:
        """See :class:`Transport`; aiohttp lets no other task read meanwhile."""
        unread = self._ahead is not None and self._ahead.unread
        return Reading.UNREAD if unread else Reading.UNTOUCHED

    def ignore_incoming(self) -> None:
        """See :class:`Transport`."""
        if self._ahead is not None:
            self._ahead.deafen(ABNORMAL, "")

    def can_read(self) -> bool:
        """See :class:`Transport`."""
        return True

    async def receive(self) -> Message:
        """See :class:`Transport`."""
        if self._over is not None:
            raise TransportClosed(*self._over)
        self.check_sending()
        try:
            event = await self._next()
        except RuntimeError as error:
            raise AlreadyReadError(f"the WebSocket cannot be read: {error}") from error
        if event["type"] == DISCONNECT:
            self._over = event["code"], event["reason"]
            self._send_as_before()
            raise TransportClosed(*self._over)
        message: Message = event["text"] if "text" in event else event["bytes"]
        return message

    async def _next(self) -> Event:
        ahead = self._ahead
        if ahead is None:
            return await self._event()
        ahead.own = True
        try:
            return await ahead.next()
        finally:
            ahead.own = False

    async def _event(self) -> Event:
        """The next thing that aiohttp has received, as ASGI would say it."""
        await self._opened.wait()
        websocket = self._websocket
        while True:
            message = await websocket.receive()
            if message.type is WSMsgType.TEXT:
                data = message.data
                return {"type": MESSAGE, "text": data if isinstance(data, str) else data.decode()}
            if message.type is WSMsgType.BINARY:
                return {"type": MESSAGE, "bytes": bytes(message.data)}
            if message.type is WSMsgType.PONG:
                if self._heard is not None:
                    self._heard(bytes(message.data))
            elif message.type is WSMsgType.PING:
                await websocket.pong(message.data)  # nobody else does: there is one reader
            else:
                reason = message.extra if message.type is WSMsgType.CLOSE else ""
                code = websocket.close_code or ABNORMAL
                return {"type": DISCONNECT, "code": int(code), "reason": reason or ""}


class WriterBehind(Behind):
    """In the place of aiohttp's writer of a WebSocket."""

    __slots__ = ("_websocket",)

    def __init__(self, websocket: Any) -> None:
        super().__init__(websocket._writer)
        self._websocket = websocket

    def __getattr__(self, name: str) -> Any:
        return getattr(self.way, name)

    async def send_frame(self, message: Any, opcode: Any, compress: int | None = None) -> None:
        """See aiohttp's; a ping or a pong waits for nothing."""
        if opcode in DATA:
            await self.wait()
        await self.way.send_frame(message, opcode, compress)

    async def close(self, code: int = 1000, message: Any = b"") -> None:
        """See aiohttp's; the state tells of the close already, which is still to come."""
        websocket = self._websocket
        closed, websocket._closed = websocket._closed, False
        try:
            self.write()
        finally:
            websocket._closed = closed
        await self.wait()
        await self.way.close(code, message)


async def _send(websocket: "web.WebSocketResponse[Any]", outgoing: Outgoing) -> None:
    if outgoing.text:
        await websocket.send_str(outgoing.payload.decode())
    else:
        await websocket.send_bytes(outgoing.payload)


async def _close(websocket: "web.WebSocketResponse[Any]", code: int, reason: str) -> None:
    await websocket.close(code=code, message=reason.encode())


def as_http(error: ClusterPoolError, status: int, text: str) -> None:
    """Make an error aiohttp's HTTPException as well; its own class still catches it.

    It stays the same object, with its cause and its traceback.
    """
    if isinstance(error, web.HTTPException):
        return
    args, kind = error.args, cast("Any", type(error))
    error.__class__ = _both(kind, status)
    assert isinstance(error, web.HTTPException)
    web.HTTPException.__init__(error, text=f"{text}\n", headers=headers_of(status))
    error.args = args


@functools.cache
def _both(kind: Any, status: int) -> Any:
    own = {
        "status_code": int(status),
        "__str__": Exception.__str__,
        "__repr__": Exception.__repr__,
        "__module__": __name__,
    }
    make: Any = type(web.HTTPException)  # a class of abstract classes
    return make(kind.__name__, (kind, web.HTTPException), own)
