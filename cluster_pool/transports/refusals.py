"""Refusals for Starlette and FastAPI: our errors, made HTTPExceptions as well."""

import functools
from collections.abc import MutableMapping
from inspect import iscoroutinefunction
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from cluster_pool.exceptions import ClusterPoolError
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


async def _no_answer(connection: Any, error: Exception) -> None:
    """Answer nothing: the client has its answer."""


class _Unless:
    """The application's handler of a status; it is not called for our errors."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    async def __call__(self, connection: Any, error: Exception) -> Any:
        if isinstance(error, ClusterPoolError):
            return None
        if iscoroutinefunction(self._handler):
            return await self._handler(connection, error)
        return await run_in_threadpool(self._handler, connection, error)
