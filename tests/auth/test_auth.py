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
    InvalidIdError,
    InvalidValueError,
    NotPermittedError,
    PoolClosedError,
    Request,
)
from tests.support import async_test


def said(value: Any) -> Any:
    """A function that returns it, or raises it."""

    def authenticate(request: Request) -> Any:
        if isinstance(value, BaseException):
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
async def test_errors_that_say_what_the_client_is_answered_pass() -> None:
    for error in (AuthenticationError("no"), NotPermittedError("not this"), InvalidIdError("bad")):
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
        Auth(authenticate=said(PoolClosedError("the pool that it asks is stopped"))),
        Auth(authenticate=said(asyncio.CancelledError())),
        Auth(authenticate=hangs, timeout=0.01),
    ]
    for auth in auths:
        with caplog.at_level(logging.ERROR, "cluster_pool.auth"):
            for _ in range(3):
                with pytest.raises(AuthenticationUnavailableError, match="not be authenticated"):
                    await auth.identify(Request())
    assert len(caplog.records) == len(auths)


@async_test
async def test_a_client_that_leaves_while_it_is_authenticated_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def hangs(request: Request) -> None:
        await asyncio.sleep(60)

    waiting = asyncio.create_task(Auth(authenticate=hangs).identify(Request()))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not caplog.records


def test_odd_arguments_are_refused() -> None:
    with pytest.raises(TypeError):
        Auth(authenticate="module:function")  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError):
        Auth(authenticate=said(None), origins=["no origin"])
    with pytest.raises(InvalidValueError):
        Auth(authenticate=said(None), timeout=0)
