"""Peculiarities of ASGI servers."""

import asyncio
import sys

import pytest

from cluster_pool.transports import asgi_servers
from tests.support import async_test


@async_test
async def test_a_refusal_waits_until_uvicorn_has_closed_the_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It reports the end twice; under another server nothing is waited for."""
    said = asyncio.Queue[dict[str, object]]()
    monkeypatch.delitem(sys.modules, asgi_servers.SANSIO, raising=False)
    await asgi_servers.until_refused(said.get, missing=2)
    monkeypatch.setitem(sys.modules, asgi_servers.SANSIO, sys)
    waiting = asyncio.create_task(asgi_servers.until_refused(said.get, missing=2))
    for kind in ("websocket.disconnect", "websocket.receive"):
        said.put_nowait({"type": kind})
    await asyncio.sleep(0.01)
    assert not waiting.done()
    said.put_nowait({"type": "websocket.disconnect"})
    await waiting


def test_only_uvicorns_legacy_protocol_waits_for_the_answer_to_a_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others return when the close is written."""
    monkeypatch.delitem(sys.modules, asgi_servers.LEGACY, raising=False)
    assert not asgi_servers.close_awaits_answer()
    monkeypatch.setitem(sys.modules, asgi_servers.LEGACY, sys)
    assert asgi_servers.close_awaits_answer()
