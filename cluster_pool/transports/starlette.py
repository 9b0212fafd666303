"""Starlette and FastAPI: an ASGI WebSocket, whatever server is below."""

import contextlib
import http
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from cluster_pool.core.closing import ABNORMAL
from cluster_pool.core.message import Message, Outgoing
from cluster_pool.core.request import Request, lines_of
from cluster_pool.transports.base import TransportClosed, refusal_code
from cluster_pool.transports.queued import SendQueue

OFFER: Final = "sec-websocket-protocol"


class StarletteTransport(SendQueue):
    """A ``starlette.websockets.WebSocket``, accepted or not yet.

    ASGI has no way to cut a socket: :meth:`abort` gives the connection up, and the server ends it
    when the application's function returns.
    """

    def __init__(self, websocket: WebSocket) -> None:
        super().__init__()
        self._websocket = websocket
        self._closing = False
        self._over: TransportClosed | None = None

    def write(self, outgoing: Outgoing, taken: int = 0) -> int:
        """See :class:`Transport`."""
        return self.enqueue(outgoing) if self.is_open() else -1

    def buffered(self) -> int:
        """See :class:`Transport`."""
        return self._queued

    def taken(self) -> int:
        """See :class:`Transport`; here it is what the library's send has returned from."""
        return self._sent

    def request(self) -> Request:
        """See :class:`Transport`; the client's address is what the server below made of it."""
        scope = self._websocket.scope
        headers = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        ]
        offered = scope.get("subprotocols")
        if offered and not any(name.lower() == OFFER for name, _ in headers):
            headers.append((OFFER, ", ".join(offered)))  # wsproto takes what it reads out
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

    def is_open(self) -> bool:
        """Whether messages can be written now."""
        return (
            self._websocket.application_state is WebSocketState.CONNECTED
            and self._websocket.client_state is WebSocketState.CONNECTED
            and not self._closing
            and not self.failed
        )

    def is_closed(self) -> bool:
        """See :class:`Transport`."""
        return (
            self.failed
            or self._over is not None
            or self._websocket.client_state is WebSocketState.DISCONNECTED
            or self._websocket.application_state is WebSocketState.DISCONNECTED
        )

    def close(self, code: int, reason: str) -> None:
        """See :class:`Transport`."""
        if self._websocket.application_state is WebSocketState.CONNECTING:
            return
        if not self._closing:
            self._closing = True
            self.enqueue_close(code, reason)

    def abort(self) -> None:
        """See :class:`Transport`."""
        self.drop()

    async def accept(self, subprotocol: str | None) -> None:
        """See :class:`Transport`."""
        if self._websocket.application_state is WebSocketState.CONNECTING:
            await self._websocket.accept(subprotocol)

    async def refuse(self, status: int, text: str) -> None:
        """Answer with the status where the server knows the denial response, else with 403.

        A 403 is what ASGI makes of a close before the accept; clients take it as final, a 503
        with Retry-After they do not (ASGI specification, "websocket.http.response").
        """
        if self._websocket.application_state is not WebSocketState.CONNECTING:
            self.close(refusal_code(status), text)
            return
        self._closing = True
        headers = {"Retry-After": "1"} if status == http.HTTPStatus.SERVICE_UNAVAILABLE else {}
        with contextlib.suppress(RuntimeError, OSError):
            if "websocket.http.response" in self._websocket.scope.get("extensions", {}):
                answer = PlainTextResponse(f"{text}\n", status, headers)
                await self._websocket.send_denial_response(answer)
            else:
                await self._websocket.close(refusal_code(status), text)

    async def alive(self, within: float) -> bool:
        """See :class:`Transport`; a client cannot be asked here, so it is there until it leaves."""
        return not self.is_closed()

    async def wait_closed(self) -> None:
        """See :class:`Transport`; the server below finishes the handshake by itself."""
        await self.wait_sent()

    async def receive(self) -> Message:
        """See :class:`Transport`."""
        if self._over is not None:
            raise self._over
        try:
            event = await self._websocket.receive()
        except (WebSocketDisconnect, RuntimeError) as error:
            self._over = TransportClosed(getattr(error, "code", ABNORMAL))
            raise self._over from error
        if event["type"] == "websocket.disconnect":
            code, reason = event.get("code") or ABNORMAL, event.get("reason") or ""
            self._over = TransportClosed(code, reason)
            raise self._over
        text = event.get("text")
        message: Message = text if text is not None else event["bytes"]
        return message

    async def _send_now(self, outgoing: Outgoing) -> None:
        if outgoing.text:
            await self._websocket.send_text(outgoing.payload.decode())
        else:
            await self._websocket.send_bytes(outgoing.payload)

    async def _close_now(self, code: int, reason: str) -> None:
        await self._websocket.close(code, reason)
