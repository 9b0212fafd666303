"""A page in a real browser, driven by the DevTools protocol."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.support import eventually
from tools.harness.nodes import in_thread
from tools.harness.ports import accepts, free_port


class Page:
    """A page: evaluates JavaScript in it."""

    def __init__(self, link: ClientConnection) -> None:
        self._link = link
        self._numbers = itertools.count(1)

    async def do(self, script: str) -> Any:
        """Evaluate an expression; gives its value, as JSON has it."""
        number = next(self._numbers)
        call = {"expression": script, "returnByValue": True, "awaitPromise": True}
        order = {"id": number, "method": "Runtime.evaluate", "params": call}
        await self._link.send(json.dumps(order))
        while True:
            answer = json.loads(await self._link.recv())
            if answer.get("id") == number:
                assert "exceptionDetails" not in answer["result"], answer
                return answer["result"]["result"].get("value")


@contextlib.asynccontextmanager
async def opened(url: str, folder: Path) -> AsyncIterator[Page]:
    """A browser that shows a page, killed at the end."""
    port = free_port()
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", f"--remote-debugging-port={port}"),
        f"--user-data-dir={folder / 'profile'}",
    )
    process = subprocess.Popen(  # noqa: ASYNC220  # it forks, and nothing else
        ["chromium", *options, url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await eventually(lambda: accepts(port), 60)
        where = await eventually(lambda: in_thread(_page_of, port), 60)
        async with connect(where, proxy=None, max_size=None) as link:
            page = Page(link)
            loaded = f"location == {url!r} && document.readyState == 'complete'"
            await eventually(lambda: page.do(loaded), 60)
            yield page
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its many processes are a group of their own
        process.wait()


def _page_of(port: int) -> str | None:
    """The DevTools address of the first page."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
        pages = [one for one in json.load(answer) if one["type"] == "page"]
    return pages[0]["webSocketDebuggerUrl"] if pages else None
