"""Chooses the transport by the type of the WebSocket, without importing a library for it."""

import sys
from typing import Any

from cluster_pool.transports.asgi_servers import EXTENSION
from cluster_pool.transports.base import Transport
from cluster_pool.transports.callables import CallablesTransport, SendAndClose


def transport_for(websocket: Any) -> Transport:
    """The transport of a WebSocket.

    Args:
        websocket: a connection of ``websockets``, a Starlette or FastAPI ``WebSocket``, a pair of
            callables ``(send, close)``, or a pair of aiohttp: its request and its
            ``WebSocketResponse``.

    Raises:
        TypeError: it is none of these.
    """
    library = sys.modules.get("websockets.asyncio.connection")
    if library is not None and isinstance(websocket, library.Connection):
        from cluster_pool.transports.websockets import WebsocketsTransport

        return WebsocketsTransport(websocket)
    library = sys.modules.get("starlette.websockets")
    if library is not None and isinstance(websocket, library.WebSocket):
        if EXTENSION in websocket.scope.get("extensions", ()):
            from cluster_pool.transports.starlette_uvicorn import starlette_transport

            return starlette_transport(websocket)
        from cluster_pool.transports.starlette import StarletteTransport

        return StarletteTransport(websocket)
    if isinstance(websocket, tuple) and len(websocket) == 2:
        library = sys.modules.get("aiohttp.web_ws")
        if library is not None and isinstance(websocket[1], library.WebSocketResponse):
            from cluster_pool.transports.aiohttp import AiohttpTransport

            return AiohttpTransport(*websocket)
        if all(map(callable, websocket)):
            return CallablesTransport(*websocket)
    if isinstance(websocket, SendAndClose):
        return CallablesTransport(websocket.send, websocket.close)  # type: ignore[attr-defined]  # it has both
    raise TypeError(
        f"{type(websocket).__module__}.{type(websocket).__qualname__} is no WebSocket that is "
        "known here: pass a connection of websockets.asyncio, a WebSocket of Starlette or "
        "FastAPI, (request, websocket) of aiohttp, or a pair of callables (send, close), for what "
        "comes in with connection.feed()"
    )
