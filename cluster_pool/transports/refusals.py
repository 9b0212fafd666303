"""Refusals that Starlette and FastAPI understand: our errors, which are its HTTPException, too."""

import functools
import http
from collections.abc import MutableMapping
from inspect import iscoroutinefunction
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from cluster_pool.exceptions import ClusterPoolError


def headers_of(status: int) -> dict[str, str]:
    """The headers of a refusal."""
    return {"Retry-After": "1"} if status == http.HTTPStatus.SERVICE_UNAVAILABLE else {}


def as_http(error: ClusterPoolError, status: int, text: str) -> None:
    """Make an error starlette's HTTPException as well; its own class still catches it.

    It is the same object, so that its attributes, its cause and its traceback stay with it.
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


def leave_answered(scope: MutableMapping[str, Any], error: ClusterPoolError) -> None:
    """See to it that the application answers nothing to ``error``: that has been done.

    Its handlers are found by the status and then by the class of an exception; one that gives no
    response sends none (starlette._exception_handler).
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
    """Answer nothing: that has been done."""


class _Unless:
    """A handler of the application for a status, which is left out for what was answered."""

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    async def __call__(self, connection: Any, error: Exception) -> Any:
        if isinstance(error, ClusterPoolError):
            return None
        if iscoroutinefunction(self._handler):
            return await self._handler(connection, error)
        return await run_in_threadpool(self._handler, connection, error)
