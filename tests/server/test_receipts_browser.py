"""Receipts of a page in a real browser: its WebSocket stack answers while its script is busy."""

import asyncio
import contextlib
import functools
import http.server
import shutil
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cluster_pool import Publisher, SendResult
from tests.docs.devtools import Page, opened
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed"),
    pytest.mark.parametrize("own_server", ["valkey"], indirect=True),
]
OPEN = """
window.heard = [];
window.ended = null;
window.socket = new WebSocket("ws://127.0.0.1:PORT/ws/room?id=page");
socket.onmessage = event => heard.push(event.data);
socket.onclose = event => { ended = event.code; };
new Promise(resolve => { socket.onopen = () => resolve(true); })
"""
BLOCK = "for (const end = Date.now() + 10000; Date.now() < end;); heard.length"
LONG = 60.0


@contextlib.contextmanager
def site(folder: Path) -> Iterator[str]:
    """An empty page."""
    (folder / "index.html").write_text("<title>x</title>")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()


@contextlib.asynccontextmanager
async def member(redis: RedisServer, folder: Path) -> AsyncIterator[tuple[Publisher, Page]]:
    """A page that is a member, and a publisher."""
    with NodeProcess(redis.url, "--node-id", "one", "--origin", "*") as node, site(folder) as url:
        async with Publisher(redis.url) as publisher, opened(url, folder) as page:
            assert await page.do(OPEN.replace("PORT", str(node.port)))
            yield publisher, page


@async_test
async def test_busy_page_receives(own_server: RedisServer, tmp_path: Path) -> None:
    """The script gets every message afterwards; beyond 128 KiB the browser waits for it."""
    async with member(own_server, tmp_path) as (publisher, page):
        for count, size, waits in ((10, 20, False), (5, 20_000, False), (300, 20_000, True)):
            before = await page.do("heard.length")
            blocked = asyncio.create_task(page.do(BLOCK))
            await asyncio.sleep(0.3)
            for _ in range(count):
                sent = await publisher.send(
                    "room", "page", "x" * size, confirm="client", timeout=LONG
                )
                assert sent is SendResult.RECEIVED
            assert blocked.done() is waits
            assert await blocked == before
            await eventually(lambda total=before + count: has_heard(page, total))


async def has_heard(page: Page, count: int) -> bool:
    return bool(await page.do("heard.length") == count)


@async_test
async def test_busy_page_answers_the_close(own_server: RedisServer, tmp_path: Path) -> None:
    """Messages that were sent before it are received."""
    async with member(own_server, tmp_path) as (publisher, page):
        blocked = asyncio.create_task(page.do(BLOCK))
        await asyncio.sleep(0.3)
        for index in range(5):
            await publisher.send("room", "page", str(index))
        result = await publisher.send_then_close(
            "room", "page", "last", 1012, confirm="client", timeout=LONG
        )
        assert not blocked.done()
        assert result is SendResult.RECEIVED
        assert await blocked == 0
        await eventually(lambda: is_closed(page))
        assert await page.do("heard") == ["0", "1", "2", "3", "4", "last"]


async def is_closed(page: Page) -> bool:
    return bool(await page.do("ended") == 1012)
