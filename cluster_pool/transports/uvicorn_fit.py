"""Whether the installed uvicorn has what our protocol needs of its sans-I/O protocol."""

import asyncio
import dis
from typing import Any, Final

try:
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
except ImportError:  # before 0.35
    WebSocketsSansIOProtocol = asyncio.Protocol  # type: ignore[assignment,misc]

__all__ = ["ATTRIBUTES", "METHODS", "WebSocketsSansIOProtocol", "missing", "stored"]

STORING: Final = ("__init__", "handle_connect")
METHODS: Final = (
    *("connection_lost", "eof_received", "handle_close", "handle_connect", "handle_cont"),
    *("handle_parser_exception", "handle_ping", "handle_pong", "keepalive_timeout"),
    *("data_received", "handle_events", "on_task_complete", "receive", "schedule_ping", "send"),
    *("send_keepalive_ping", "shutdown", "stop_keepalive"),
)
ATTRIBUTES: Final = (
    *(
        "close_sent",
        "conn",
        "handshake_complete",
        "handshake_initiated",
        "last_ping_rtt",
        "ping_interval",
    ),
    *("ping_timer", "queue", "read_paused", "request", "response", "scope", "transport"),
    "writable",
)


def stored() -> set[str]:
    """The attributes that uvicorn's protocol stores at its beginning, and of the handshake."""
    methods: list[Any] = [getattr(WebSocketsSansIOProtocol, name, None) for name in STORING]
    codes = [method.__code__ for method in methods if hasattr(method, "__code__")]
    steps = [step for code in codes for step in dis.get_instructions(code)]
    return {str(step.argval) for step in steps if step.opname == "STORE_ATTR"}


def missing() -> list[str]:
    """The names without which the installed uvicorn does not fit."""
    attributes = stored()
    methods = [name for name in METHODS if not hasattr(WebSocketsSansIOProtocol, name)]
    return methods + [name for name in ATTRIBUTES if name not in attributes]
