"""Peculiarities of uvicorn."""

import asyncio
import sys

import pytest

from cluster_pool.transports import uvicorn
from tests.support import async_test


@async_test
async def test_a_refusal_waits_until_uvicorn_has_closed_the_socket(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It reports the end twice; under another server nothing is waited for."""
    said = asyncio.Queue[dict[str, object]]()
    monkeypatch.delitem(sys.modules, uvicorn.SANSIO, raising=False)
    await uvicorn.until_refused(said.get, missing=2)
    monkeypatch.setitem(sys.modules, uvicorn.SANSIO, sys)
    waiting = asyncio.create_task(uvicorn.until_refused(said.get, missing=2))
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
    monkeypatch.delitem(sys.modules, uvicorn.LEGACY, raising=False)
    assert not uvicorn.close_awaits_answer()
    monkeypatch.setitem(sys.modules, uvicorn.LEGACY, sys)
    assert uvicorn.close_awaits_answer()
