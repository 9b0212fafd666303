"""The client for browsers in Chromium, before a server whose answers fail, are late or are odd."""

import asyncio
import contextlib
import json
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from tests.docs.devtools import Page, opened
from tests.server.pages import SETUP, Socket
from tests.support import async_test, eventually

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed"),
]

SOON = "setTimeout = (later => (call, ms) => later(call, ms / 20))(setTimeout), 0"
"""Time-outs of the page pass twenty times as fast."""


class OddServer:
    """Answers clients as the path of their URL says.

    Attributes:
        heard: the requests, without their refs, by the path.
    """

    def __init__(self) -> None:
        self.heard: dict[str, list[dict[str, Any]]] = {}
        self.opened: Counter[str] = Counter()

    def file(self, socket: ServerConnection, request: Request) -> Response | None:
        """The page, and the client that it loads."""
        if request.path.startswith("/ws/"):
            return None
        script = files("cluster_pool") / "static" / "cluster-socket.js"
        loads = request.path == "/cluster-socket.js"
        kind, text = ("javascript", script.read_text()) if loads else ("html", "<title>A</title>")
        return Response(200, "OK", Headers({"Content-Type": f"text/{kind}"}), text.encode())

    async def serve(self, socket: ServerConnection) -> None:
        """One client."""
        assert socket.request is not None
        kind = socket.request.path.removeprefix("/ws/")
        self.opened[kind] += 1
        welcome: dict[str, Any] = {"id": "a", "ns": "lobby"}
        if kind == "past":
            welcome["expires"] = time.time() - 1000
        await socket.send(json.dumps({"welcome": welcome}))
        async for text in socket:
            request = json.loads(text)
            ref = request.pop("ref")
            told = self.heard.setdefault(kind, [])
            told.append(request)
            if kind == "again" and len(told) == 2:
                answer = {"error": "unavailable", "reason": "this is not possible now"}
            else:
                answer = {"ok": True}
            if kind != "silent":
                await socket.send(json.dumps({"ref": ref, **answer}))
            if kind == "again" and len(told) == 1:
                await socket.close(1012)


@contextlib.asynccontextmanager
async def shown(folder: Path) -> AsyncIterator[tuple[OddServer, Page]]:
    """A page of the server's."""
    odd = OddServer()
    options: Any = {"subprotocols": [Subprotocol("cluster-pool.v1")], "process_request": odd.file}
    async with serve(odd.serve, "127.0.0.1", 0, **options) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with opened(f"http://127.0.0.1:{port}/page", folder) as page:
            await page.do(SETUP)
            yield odd, page


async def begin(page: Page, name: str, options: str = "{}") -> Socket:
    await page.do(f"begin({name!r}, {f'/ws/{name}'!r}, {options})")
    return Socket(page, name)


@async_test
async def test_a_request_without_an_answer_ends_the_connection(tmp_path: Path) -> None:
    """A node that is frozen, or a network that drops all, closes nothing by itself."""
    async with shown(tmp_path) as (odd, page):
        await page.do(SOON)
        socket = await begin(page, "silent")
        await eventually(socket.open, 30)
        assert await socket.refused("publish('lobby', 'x')") == "closed"
        (closed,) = await socket.told("close")
        assert (closed["code"], closed["reason"]) == (1006, "no answer")
        await eventually(lambda: odd.opened["silent"] == 2, 30)


@async_test
async def test_an_info_that_cannot_be_told_now_is_told_later(tmp_path: Path) -> None:
    async with shown(tmp_path) as (odd, page):
        await page.do(SOON)
        socket = await begin(page, "again")
        await socket.do("info({ types: true })")
        await eventually(lambda: len(odd.heard["again"]) == 3, 30)
        assert odd.heard["again"] == [{"info": {"types": True}}] * 3
        assert not await socket.told("left")


@async_test
async def test_a_page_whose_clock_is_ahead_does_not_renew_all_the_time(tmp_path: Path) -> None:
    """The end seems to be in the past: the server tells it, by 4401."""
    async with shown(tmp_path) as (odd, page):
        await page.do(SOON)
        socket = await begin(page, "past", "{ token: async () => 'x' }")
        await eventually(socket.open, 30)
        await asyncio.sleep(2)
        assert await socket.open()
        assert "past" not in odd.heard


@async_test
async def test_a_token_that_cannot_be_offered_stands_in_no_event(tmp_path: Path) -> None:
    async with shown(tmp_path) as (_, page):
        socket = await begin(page, "quoted", "{ token: async () => '\"secret\"' }")
        await eventually(lambda: socket.told("close"), 30)
        assert (await socket.told("close"))[0]["reason"] == "no valid url or token"


@async_test
async def test_nothing_is_told_behind_the_end(tmp_path: Path) -> None:
    """A handler of the second connection closes the socket."""
    async with shown(tmp_path) as (_, page):
        socket = await begin(page, "again")
        await socket.do("onopen = ({ again, target }) => again && target.close(), 0")
        await socket.do("info({ types: true })")
        await eventually(lambda: socket.do("isFinal"), 30)
        await asyncio.sleep(0.2)
        assert not await socket.told("lost")
