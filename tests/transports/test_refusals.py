"""Refusals that starlette treats as its own."""

import contextlib
import logging
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.exceptions import HTTPException, WebSocketException
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError

from cluster_pool import IdTakenError
from cluster_pool.transports.refusals import answer_nothing, as_http
from cluster_pool.uvicorn import Protocol
from tests.clusters import Backend
from tests.support import async_test, eventually
from tests.transports.served import QUIET, served

pytestmark = QUIET


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


class Own(WebSocketException):
    """One with a handler of its own."""


@pytest.mark.parametrize("ws", [Protocol, "websockets-sansio", "websockets", "wsproto"])
@async_test
async def test_an_endpoint_closes_by_an_exception_of_its_framework(
    ws: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """In the body of accept it has the same end as outside, and leaves nothing in the log."""
    handled: list[Exception] = []
    app = FastAPI()

    @app.exception_handler(Own)
    async def handler(websocket: WebSocket, error: Own) -> None:
        handled.append(error)
        await websocket.close(error.code, "handled")

    async def end_of(client: Any) -> tuple[int, str, Any]:
        heard: list[Any] = []
        with contextlib.suppress(ConnectionClosedError):
            heard.append(await client.recv())
            heard.append(await client.recv())
        return client.close_code, client.close_reason, heard

    async with Backend(None).pools(1) as (pool,):

        @app.websocket("/{inside}/{code}")
        async def endpoint(websocket: WebSocket, inside: int, code: int) -> None:
            kind = Own if code == 4111 else WebSocketException
            if not inside:
                await websocket.accept()
                raise kind(code, "no thanks")
            async with pool.accept(websocket, namespace="n") as connection:
                await connection.send("before")
                raise kind(code, "no thanks")

        async with served(app, ws) as url:
            for code, outside in ((4321, "no thanks"), (4111, "handled")):
                async with connect(f"{url}/1/{code}", close_timeout=1) as client:
                    assert await end_of(client) == (code, "no thanks", ["before"])
                async with connect(f"{url}/0/{code}", close_timeout=1) as client:
                    assert await end_of(client) == (code, outside, [])
            assert len(handled) == 1
            assert (
                caplog.messages == [] or max(one.levelno for one in caplog.records) < logging.ERROR
            )
            async with connect(f"{url}/1/99", close_timeout=1) as client:
                assert await end_of(client) == (1011, "", ["before"])
        await eventually(lambda: not pool.has_namespace("n"))
