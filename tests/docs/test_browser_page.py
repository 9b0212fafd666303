"""The page in docs/serve.md, shown by a browser."""

import contextlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster_pool import Publisher
from tests.docs.devtools import opened
from tests.docs.pages import block_with, blocks
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed"),
]


@contextlib.contextmanager
def served(text: str) -> Iterator[str]:
    """A web server with one page; gives its origin."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name is theirs
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *arguments: Any) -> None:
            """Log nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@async_test
async def test_the_page_publishes_and_comes_back(tmp_path: Path) -> None:
    """It stands on another origin than the node, and tells what it has missed."""
    (block,) = blocks("html")
    rule = block_with("--namespace-rule lobby=publish").text
    assert "--origin" in rule
    with RedisServer("valkey") as redis, contextlib.ExitStack() as stack:
        options = ("--namespace-rule", "lobby=publish", "--origin", "*")
        node = stack.enter_context(NodeProcess(redis.url, *options))
        text = block.text.replace("localhost:8001", f"127.0.0.1:{node.port}")
        origin = stack.enter_context(served(text))
        async with Publisher(redis.url) as publisher, opened(f"{origin}/", tmp_path) as page:

            async def lines() -> list[str]:
                found: list[str] = await page.do(
                    "[...document.querySelectorAll('li')].map(line => line.innerText)"
                )
                return found

            (begun,) = await eventually(lines, 60)
            id = begun.removeprefix("here as ")
            await page.do("text.value = 'hello', text.onchange(), 0")
            await eventually(lambda: _has(lines, f"{id}: hello"), 30)
            await publisher.broadcast_message("lobby", "good morning")
            await eventually(lambda: _has(lines, "the server: good morning"), 30)
            assert await publisher.close("lobby", id, 1012)
            await eventually(lambda: _has(lines, "messages to lobby may be missing"), 30)
            assert "coming back" in await lines()


async def _has(lines: Any, text: str) -> bool:
    return text in await lines()
