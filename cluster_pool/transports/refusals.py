"""Refusals for Starlette and FastAPI: our errors, made HTTPExceptions as well."""

import functools
from collections.abc import MutableMapping
from inspect import iscoroutinefunction
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException, WebSocketException
from starlette.websockets import WebSocketState

from cluster_pool.core.closing import check_close
from cluster_pool.exceptions import ClusterPoolError, InvalidCloseError
from cluster_pool.transports.base import headers_of


def as_http(error: ClusterPoolError, status: int, text: str) -> None:
    """Make an error starlette's HTTPException as well; its own class still catches it.

    It stays the same object, with its attributes, its cause and its traceback.
    """
    if isinstance(error, HTTPException):
        return
    kind: Any = type(error)
    error.__class__ = _both(kind)
    assert isinstance(error, HTTPException)
    error.status_code, error.detail, error.headers = status, text, headers_of(status)


@functools.cache
def _both(kind: Any) -> Any:
    own = {"__str__": Exception.__str__, "__repr__": Exception.__repr__, "__module__": __name__}
    return type(kind.__name__, (kind, HTTPException), own)


def answer_nothing(scope: MutableMapping[str, Any], error: ClusterPoolError) -> None:
    """Keep the application from answering ``error``, since the client has its answer already.

    Starlette looks a handler up by the status and then by the class of an exception; a handler
    that returns no response sends none (starlette._exception_handler).
    """
    handlers: Any = scope.get("starlette.exception_handlers")
    if handlers is None:
        return
    by_class, by_status = handlers
    by_class[type(error)] = _no_answer
    assert isinstance(error, HTTPException)
    handler = by_status.get(error.status_code)
    if handler is not None and not isinstance(handler, _Unless):
        by_status[error.status_code] = _Unless(handler)


def closing_of(error: Exception, scope: MutableMapping[str, Any]) -> tuple[int, str] | None:
    """The code and the reason of a WebSocketException, for the caller to close with.

    None for any other error, and if a close may not have them. The application's handler, which
    would close once more and fail, is not called any more for a WebSocket that is closed.
    """
    if not isinstance(error, WebSocketException):
        return None
    try:
        asked = check_close(error.code, error.reason)
    except InvalidCloseError:
        return None
    by_class: Any = scope.get("starlette.exception_handlers", ({},))[0]
    kind = next((kind for kind in type(error).__mro__ if kind in by_class), None)
    if kind is not None and not isinstance(by_class[kind], _UnlessClosed):
        by_class[kind] = _UnlessClosed(by_class[kind])
    return asked


async def _no_answer(connection: Any, error: Exception) -> None:
    """Answer nothing: the client has its answer."""


class _Unless:
    """The application's handler of a status; it is not called for our errors."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    async def __call__(self, connection: Any, error: Exception) -> Any:
        if isinstance(error, ClusterPoolError):
            return None
        return await _called(self._handler, connection, error)


class _UnlessClosed:
    """The application's handler of an exception; it is not called for a closed WebSocket."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    async def __call__(self, connection: Any, error: Exception) -> Any:
        closed = WebSocketState.DISCONNECTED
        if getattr(connection, "application_state", None) is closed:
            return None
        return await _called(self._handler, connection, error)


async def _called(handler: Any, connection: Any, error: Exception) -> Any:
    """Call a handler as Starlette does."""
    if iscoroutinefunction(handler):
        return await handler(connection, error)
    return await run_in_threadpool(handler, connection, error)
