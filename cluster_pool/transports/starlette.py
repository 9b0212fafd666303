"""Starlette and FastAPI: an ASGI WebSocket, under any server."""

import contextlib
import logging
from collections.abc import Awaitable, MutableMapping
from functools import partial
from typing import Any, Final

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from cluster_pool.core.closing import ABNORMAL
from cluster_pool.core.message import Message, Outgoing
from cluster_pool.core.request import Request, lines_of
from cluster_pool.exceptions import AlreadyReadError, ClusterPoolError, NotAcceptedError
from cluster_pool.transports import asgi_servers
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
from cluster_pool.transports.kept import Kept, Receive
from cluster_pool.transports.queued import SendQueue
from cluster_pool.transports.refusals import answer_nothing, as_http, closing_of
from cluster_pool.transports.wrappers import Send, innermost, is_of_server

log = logging.getLogger("cluster_pool.transports")


class Logged:
    """Log lines that this process writes only once."""

    unreachable = False


OFFER: Final = "sec-websocket-protocol"
SEND: Final = "websocket.send"
CONNECTED: Final = WebSocketState.CONNECTED


class StarletteBase:
    """A ``starlette.websockets.WebSocket``, accepted or not yet: all but its writing side."""

    __slots__ = ("_ahead", "_closing", "_over", "_websocket")

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._closing = False
        self._over: tuple[int, str] | None = None
        """How it ended. No exception is kept: its traceback leads back here, in a circle."""
        self._ahead: Kept | None = None

    def write_behind(self, outbox: Outbox) -> None:
        """See :class:`Transport`; ASGI does not tell of a server's writes."""

    # -- the handshake ---------------------------------------------------------------------

    def request(self) -> Request:
        """See :class:`Transport`; the client's address is the one that the server has found out."""
        scope = self._websocket.scope
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        offered = scope.get("subprotocols")
        if offered and not any(name.lower() == OFFER for name, _ in headers):
            headers.append((OFFER, ", ".join(offered)))  # wsproto removes the headers that it reads
        client = scope.get("client")
        return Request(
            scope["path"],
            scope.get("query_string", b"").decode("latin-1"),
            lines_of(headers),
            client[0] if client else None,
        )

    def is_answered(self) -> bool:
        """See :class:`Transport`."""
        return self._websocket.application_state is not WebSocketState.CONNECTING

    def check_sending(self) -> None:
        """See :class:`Transport`."""
        if self._websocket.application_state is WebSocketState.CONNECTING:
            raise NotAcceptedError("await websocket.accept() first, or use pool.accept(…)")

    async def accept(self, subprotocol: str | None) -> None:
        """See :class:`Transport`."""
        if self._websocket.application_state is WebSocketState.CONNECTING:
            await self._websocket.accept(subprotocol)
            if self._ahead is not None:
                self._ahead.accepted()

    async def refuse(self, status: int, text: str) -> None:
        """Answer with the status if the server has the denial response, else with 403.

        ASGI turns a close before the accept into a 403. Clients take that as final, but not a 503
        with Retry-After (ASGI specification, "websocket.http.response").
        """
        if self._websocket.application_state is not WebSocketState.CONNECTING:
            self.close(*refusal_close(status, text))
            await self.wait_close_begun()  # a server cuts when its endpoint returns
            return
        self._closing = True
        headers = headers_of(status)
        with contextlib.suppress(RuntimeError, OSError):
            if "websocket.http.response" in self._websocket.scope.get("extensions", {}):
                answer = PlainTextResponse(f"{text}\n", status, headers)
                await self._websocket.send_denial_response(answer)
                await self._until_refused()
            else:
                await self._websocket.close(*refusal_close(status, text))

    async def _until_refused(self) -> None:
        ahead = self._ahead
        receive = self._websocket._receive if ahead is None else ahead.receive
        await asgi_servers.until_refused(receive, missing=2 if ahead is None else 1)

    def refusal(self, error: ClusterPoolError, status: int, text: str) -> ClusterPoolError:
        """See :class:`Transport`: the same object is starlette's HTTPException, too.

        Starlette and FastAPI then log no traceback. They are kept from answering the exception,
        since the client has its answer already.
        """
        as_http(error, status, text)
        answer_nothing(self._websocket.scope, error)
        return error

    def closing_of(self, error: Exception) -> tuple[int, str] | None:
        """See :class:`Transport`."""
        return closing_of(error, self._websocket.scope)

    def close(self, code: int, reason: str) -> None:
        """See :class:`Transport`."""
        raise NotImplementedError

    async def wait_close_begun(self) -> None:
        """See :class:`Transport`."""
        raise NotImplementedError

    # -- reading ---------------------------------------------------------------------------

    def watch(self, watcher: Watcher, ahead: Ahead) -> None:
        """See :class:`Transport`; the WebSocket's own methods read the messages kept here, too."""
        known = getattr(self._websocket._receive, "__self__", None)
        if isinstance(known, Kept):  # two connections share this WebSocket
            self._ahead = known
        else:
            self._ahead = self._keep_events(self._websocket._receive, ahead)
            self._websocket._receive = self._ahead.next
        self._ahead.watch(watcher)

    def _keep_events(self, receive: Receive, ahead: Ahead) -> Kept:
        return ReadAhead(receive, ahead)

    async def unwatch(self, watcher: Watcher) -> None:
        """See :class:`Transport`."""
        ahead = self._ahead
        if ahead is not None and await ahead.unwatch(watcher):
            self._websocket._receive = ahead.receive

    def reading(self) -> Reading:
        """See :class:`Transport`."""
        ahead = self._ahead
        if ahead is None:
            return Reading.UNTOUCHED
        if ahead.elsewhere:
            return Reading.WAITED if ahead.awaited else Reading.ELSEWHERE
        return Reading.UNREAD if ahead.unread else Reading.UNTOUCHED

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
        event = await self._receive()
        if event["type"] == "websocket.disconnect":
            self._over = event.get("code") or ABNORMAL, event.get("reason") or ""
            raise TransportClosed(*self._over)
        text = event.get("text")
        message: Message = text if text is not None else event["bytes"]
        return message

    async def _receive(self) -> MutableMapping[str, Any]:
        ahead = self._ahead
        try:
            if ahead is None:
                return await self._websocket.receive()
            ahead.own = True
            try:
                return await self._websocket.receive()
            finally:
                ahead.own = False
        except (WebSocketDisconnect, OSError) as error:
            self._over = getattr(error, "code", ABNORMAL), ""
            raise TransportClosed(*self._over) from error
        except RuntimeError as error:
            if self._websocket.client_state is WebSocketState.DISCONNECTED:
                self._over = ABNORMAL, ""
                raise TransportClosed(*self._over) from error
            raise AlreadyReadError(f"the WebSocket cannot be read: {error}") from error


class StarletteTransport(StarletteBase):
    """One whose server alone can send: the ordinary way.

    ASGI has no way to cut a socket: :meth:`abort` gives the connection up, and the server ends it
    when the application's function returns.
    """

    __slots__ = ("_queue",)

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__(websocket)
        own, plain = websocket._send, sends_plainly(websocket)
        way = own.way if isinstance(own, SendBehind) else own
        send = innermost(way)
        steps = is_of_server(send) and plain
        self._queue = SendQueue(
            partial(_send, send if steps else way)
            if plain
            else partial(_send_by_starlette, websocket),
            websocket.close,
            asgi_servers.close_awaits_answer,
            steps=steps,
        )

    @property
    def writer(self) -> Writer:
        """See :class:`Transport`."""
        return self

    def write_behind(self, outbox: Outbox) -> None:
        """See :class:`Transport`: ahead of what the WebSocket's own methods send."""
        websocket = self._websocket
        if not isinstance(websocket._send, SendBehind):
            websocket._send = SendBehind(websocket)
        websocket._send.add(outbox, self._queue)

    async def unwatch(self, watcher: Watcher) -> None:
        """See :class:`Transport`."""
        await super().unwatch(watcher)
        self._send_as_before()

    async def receive(self) -> Message:
        """See :class:`Transport`."""
        try:
            return await super().receive()
        except TransportClosed:
            self._send_as_before()
            raise

    def _send_as_before(self) -> None:
        """Nothing more is written: end the cycle through the WebSocket."""
        behind = self._websocket._send
        if isinstance(behind, SendBehind) and behind.remove(self._queue):
            self._websocket._send = behind.way

    def descriptor(self) -> int:
        """See :class:`Writer`: only the server can send."""
        return -1

    def write(self, outgoing: Outgoing, written: int = 0) -> int:
        """See :class:`Writer`."""
        websocket = self._websocket
        if (
            self._closing
            or websocket.application_state is not CONNECTED
            or websocket.client_state is not CONNECTED
            or (self._ahead is not None and self._ahead.over is not None)
            or self._queue.failed
        ):
            return -1
        return self._queue.enqueue(outgoing)

    def buffered(self) -> int:
        """See :class:`Writer`."""
        return self._queue.queued

    def bytes_written(self) -> int:
        """See :class:`Writer`; it counts messages for which the library's send has returned."""
        return self._queue.sent

    def is_closed(self) -> bool:
        """See :class:`Transport`."""
        return (
            self._queue.failed
            or self._over is not None
            or (self._ahead is not None and self._ahead.over is not None)
            or self._websocket.client_state is WebSocketState.DISCONNECTED
            or self._websocket.application_state is WebSocketState.DISCONNECTED
        )

    def close(self, code: int, reason: str) -> None:
        """See :class:`Transport`."""
        if self._websocket.application_state is WebSocketState.CONNECTING:
            return
        if not self._closing:
            self._closing = True
            self._queue.enqueue_close(code, reason)

    def abort(self) -> None:
        """See :class:`Transport`."""
        self._queue.drop()
        if self._ahead is not None:
            self._ahead.lose()
        if not Logged.unreachable:
            Logged.unreachable = True
            log.info(
                "a connection was given up whose socket ASGI gives no way to cut: "
                "its server closes it when it can (said once)"
            )

    def hears_pongs(self) -> bool:
        """See :class:`Transport`: ASGI has none."""
        return False

    def ping(self, payload: bytes, heard: Heard) -> None:
        """See :class:`Transport`."""

    def close_answer(self) -> int | None:
        """See :class:`Transport`."""
        return None

    async def alive(self, within: float) -> bool:
        """See :class:`Transport`; ASGI has no ping, so it counts as alive until it is closed."""
        return not self.is_closed()

    async def wait_close_begun(self) -> None:
        """See :class:`Transport`."""
        await self._queue.wait_close_begun()

    async def wait_closed(self) -> None:
        """See :class:`Transport`; the server finishes the close handshake by itself."""
        await self._queue.wait_sent()


class SendBehind(Behind):
    """In the place of the ``send`` of ASGI that a WebSocket has."""

    __slots__ = ("_websocket",)

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__(websocket._send)
        self._websocket = websocket

    async def __call__(self, event: MutableMapping[str, Any]) -> None:
        """See ASGI."""
        await self.wait()
        await self.way(event)

    def write(self) -> None:
        """Write what is pending, also ahead of a close, of which the state tells already."""
        websocket = self._websocket
        state = websocket.application_state
        if state is WebSocketState.DISCONNECTED:
            websocket.application_state = CONNECTED
        try:
            super().write()
        finally:
            websocket.application_state = state


def sends_plainly(websocket: WebSocket) -> bool:
    """Whether its methods only hand messages on to the server: they are Starlette's own."""
    return all(
        getattr(type(websocket), name) is getattr(WebSocket, name) and name not in vars(websocket)
        for name in ("send", "send_text", "send_bytes")
    )


def _send(send: Send, outgoing: Outgoing) -> Awaitable[None]:
    return send({"type": SEND, "text" if outgoing.text else "bytes": outgoing.message})


async def _send_by_starlette(websocket: WebSocket, outgoing: Outgoing) -> None:
    if outgoing.text:
        await websocket.send_text(outgoing.payload.decode())
    else:
        await websocket.send_bytes(outgoing.payload)
