"""Finds the server's own ``send`` under what frameworks and middleware have wrapped it in.

A middleware that counts or changes what is sent must not be passed by. So a wrapper is only looked
through if it is known to hand on every message of a WebSocket as it is; any other is left alone.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from types import FunctionType, MethodType
from typing import Any, Final

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

TRANSPARENT: Final = {
    "starlette._exception_handler": (
        "wrap_app_handling_exceptions.<locals>.wrapped_app.<locals>.sender"
    ),
    "starlette.middleware.sessions": "SessionMiddleware.__call__.<locals>.send_wrapper",
}
"""Wrappers of Starlette and FastAPI by module; they look at answers to HTTP requests alone."""
SERVERS: Final = ("uvicorn.", "hypercorn.", "cluster_pool.")
"""Modules whose ``send`` may be stepped outside of a task: it asks for no current one."""


def innermost(send: Send) -> Send:
    """The ``send`` under all transparent wrappers."""
    while isinstance(send, FunctionType):
        if TRANSPARENT.get(send.__module__) != send.__qualname__:
            break
        cells = dict(zip(send.__code__.co_freevars, send.__closure__ or (), strict=True))
        if "send" not in cells:
            break
        send = cells["send"].cell_contents
    return send


def is_of_server(send: Send) -> bool:
    """Whether it is the method of a server that is known here."""
    return isinstance(send, MethodType) and str(send.__module__).startswith(SERVERS)


def name_of(wrapper: object) -> str:
    """Module and name of a wrapper, for the log."""
    kind: Any = wrapper if hasattr(wrapper, "__qualname__") else type(wrapper)
    return f"{kind.__module__}.{kind.__qualname__}"
