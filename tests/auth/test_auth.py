"""The function ``authenticate``: its answers, errors and hangs, and what clients get then."""

import asyncio
import logging
import time
from typing import Any

import pytest

from cluster_pool import (
    Auth,
    AuthenticationError,
    AuthenticationUnavailableError,
    Identity,
    InvalidValueError,
    NotPermittedError,
    Request,
)
from tests.support import async_test


def said(value: Any) -> Any:
    """A function that returns it, or raises it."""

    def authenticate(request: Request) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return authenticate


@async_test
async def test_authenticate_may_be_sync_or_async() -> None:
    async def later(request: Request) -> Identity:
        await asyncio.sleep(0)
        return Identity(user=request.path)

    assert (await Auth(authenticate=said(Identity(user="42"))).identify(Request())).user == "42"
    assert (await Auth(authenticate=later).identify(Request("43"))).user == "43"


@async_test
async def test_a_stranger_and_an_expired_identity_are_refused() -> None:
    for nothing in (None, Identity(expires=time.time() - 1)):
        with pytest.raises(AuthenticationError):
            await Auth(authenticate=said(nothing)).identify(Request())


@async_test
async def test_errors_of_this_library_pass() -> None:
    for error in (AuthenticationError("no"), NotPermittedError("not this")):
        with pytest.raises(type(error)):
            await Auth(authenticate=said(error)).identify(Request())


@async_test
async def test_a_fault_of_authenticate_lets_nobody_in_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def hangs(request: Request) -> None:
        await asyncio.sleep(60)

    auths = [
        Auth(authenticate=said(KeyError("password"))),
        Auth(authenticate=said("alice")),
        Auth(authenticate=hangs, timeout=0.01),
    ]
    for auth in auths:
        with caplog.at_level(logging.ERROR, "cluster_pool.auth"):
            for _ in range(3):
                with pytest.raises(AuthenticationUnavailableError, match="not be authenticated"):
                    await auth.identify(Request())
    assert len(caplog.records) == 3


def test_odd_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        Auth(authenticate="module:function")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError):
        Auth(authenticate=said(None), origins=["no origin"])
    with pytest.raises(InvalidValueError):
        Auth(authenticate=said(None), timeout=0)
