"""Our protocol of uvicorn, and what becomes of one that does not fit."""

import asyncio
import copy
import logging
from typing import Any

import pytest
from uvicorn.protocols.websockets.auto import AutoWebSocketsProtocol
from websockets.asyncio.client import connect

from cluster_pool.transports import uvicorn as ours
from cluster_pool.transports import uvicorn_fit
from cluster_pool.transports.asgi_servers import EXTENSION
from tests.support import async_test
from tests.transports.served import QUIET, served

pytestmark = QUIET


def test_a_uvicorn_that_lacks_something_keeps_its_own_protocol(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning says what it lacks."""
    assert ours.missing() == []
    monkeypatch.setattr(uvicorn_fit, "METHODS", ("send", "handle_dream"))
    monkeypatch.setattr(uvicorn_fit, "ATTRIBUTES", ("conn", "hope"))
    with caplog.at_level(logging.WARNING):
        assert set(ours._chosen()) == {AutoWebSocketsProtocol}
    (record,) = caplog.records
    assert "it lacks handle_dream, hope" in record.getMessage()


@async_test
async def test_websockets_that_know_nothing_of_it_behave_as_with_uvicorns_own() -> None:
    """Events, their order, a denial, both closes, and a scope that can be copied; no dict."""
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        protocol = copy.deepcopy(scope)["extensions"][EXTENSION]
        seen.append(protocol)
        assert (await receive())["type"] == "websocket.connect"
        if scope["path"] == "/denied":
            await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b"tea"})
            return
        await send({"type": "websocket.accept"})
        while (event := await receive())["type"] == "websocket.receive":
            seen.append(event["text"] if "text" in event else event["bytes"])
            await send({**event, "type": "websocket.send"})
        seen.append((event["code"], event.get("reason")))

    async with served(app, ours.Protocol) as url:
        async with connect(f"{url}/echo", proxy=None) as client:
            assert "permessage-deflate" not in str(client.response.headers)
            for message in ("text", b"\xff", "", "x" * 100_000):
                await client.send(message)
                assert await client.recv() == message
            await client.close(4001, "bye")
        with pytest.raises(Exception, match="418"):
            await connect(f"{url}/denied", proxy=None)
        await asyncio.sleep(0.1)
    protocol, *events = seen[:-1]
    assert events == ["text", b"\xff", "", "x" * 100_000, (4001, "bye")]
    assert protocol.__dict__ == {}
    assert EXTENSION not in protocol.scope["extensions"]


@async_test
async def test_compression_is_agreed_to_by_the_protocol_that_compresses() -> None:
    """By default an offer is not taken up, nor if an option of uvicorn forbids it."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await receive()

    compressing = ours.CompressingProtocol
    forbidden = {"ws_per_message_deflate": False}
    for protocol, options, agreed in (
        (ours.Protocol, {}, False),
        (compressing, {}, True),
        (compressing, forbidden, False),
    ):
        async with served(app, protocol, **options) as url, connect(url, proxy=None) as client:
            assert ("permessage-deflate" in str(client.response.headers)) is agreed
