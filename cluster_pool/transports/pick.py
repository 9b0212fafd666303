"""Choosing the transport by the type of the WebSocket, without importing what is not loaded."""

import sys
from typing import Any

from cluster_pool.transports.base import Transport
from cluster_pool.transports.callables import CallablesTransport


def transport_for(websocket: Any) -> Transport:
    """The transport of a WebSocket.

    Args:
        websocket: a connection of ``websockets``, a Starlette or FastAPI ``WebSocket``, a pair of
            callables ``(send, close)``, or an object that has both.

    Raises:
        TypeError: it is none of these.
    """
    library = sys.modules.get("websockets.asyncio.connection")
    if library is not None and isinstance(websocket, library.Connection):
        from cluster_pool.transports.websockets import WebsocketsTransport

        return WebsocketsTransport(websocket)
    library = sys.modules.get("starlette.websockets")
    if library is not None and isinstance(websocket, library.WebSocket):
        from cluster_pool.transports.starlette import StarletteTransport

        return StarletteTransport(websocket)
    if isinstance(websocket, tuple) and len(websocket) == 2 and all(map(callable, websocket)):
        return CallablesTransport(*websocket)
    send, close = getattr(websocket, "send", None), getattr(websocket, "close", None)
    if callable(send) and callable(close):
        return CallablesTransport(send, close)
    raise TypeError(
        f"{type(websocket).__name__} is no WebSocket: it needs send and close that can be called"
    )
