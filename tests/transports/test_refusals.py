"""Refusals that starlette treats as its own."""

from typing import Any

import pytest
from starlette.exceptions import HTTPException

from cluster_pool import IdTakenError
from cluster_pool.transports.refusals import answer_nothing, as_http
from tests.support import async_test


def test_a_refusal_is_both_our_error_and_an_http_exception() -> None:
    """It stays the same object, with its attributes; a second conversion changes nothing."""
    error = IdTakenError("room", "alice")
    text = str(error)
    for status in (503, 409):
        as_http(error, status, "taken")
    assert isinstance(error, HTTPException)
    assert (error.status_code, error.detail, str(error)) == (503, "taken", text)
    assert error.headers == {"Retry-After": "1"}
    with pytest.raises(IdTakenError):
        raise error


@async_test
async def test_handlers_of_the_application_still_answer_other_errors() -> None:
    """A handler is skipped only for a refusal that was answered already."""
    error = IdTakenError("room", "alice")
    as_http(error, 409, "taken")
    by_class: dict[Any, Any] = {}
    by_status = {409: lambda connection, error: "answered"}
    answer_nothing({"starlette.exception_handlers": (by_class, by_status)}, error)
    answer_nothing({}, error)
    handler: Any = by_status[409]
    assert await handler(None, error) is None
    assert await handler(None, HTTPException(409)) == "answered"
    assert await by_class[type(error)](None, error) is None
