"""A real browser, through the real proxies with the files that we ship, to real nodes.

The proxy answers ``/page`` with a script tag; the script comes from here, and reports to here.
"""

import contextlib
import http.server
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.proxies import Cluster, Proxy, haproxy, nginx
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import in_thread
from tools.harness.ports import accepts, free_port

pytestmark = pytest.mark.real

APP = """
async def handler(pool, connection):
    await connection.send(str(connection.request.client))
    await connection.wait_closed()
"""
SCRIPT = """
const tried = [];
function report() {
    new Image().src = HERE + "/report?" + encodeURIComponent(JSON.stringify(tried));
}
function attempt(urls) {
    if (!urls.length) return report();
    const socket = new WebSocket(urls[0]);
    let said = null;
    socket.onmessage = event => { said = event.data; socket.close(); };
    socket.onclose = () => { tried.push(said); attempt(urls.slice(1)); };
}
attempt(URLS);
"""


class Desk(http.server.ThreadingHTTPServer):
    """Serves the script, and collects the reports of pages."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Clerk)
        self.urls: list[str] = []
        self.reports: queue.Queue[list[str | None]] = queue.Queue()

    @property
    def here(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Clerk(http.server.BaseHTTPRequestHandler):
    """Answers one request."""

    server: Desk

    def do_GET(self) -> None:  # the name is theirs
        path, _, query = self.path.partition("?")
        if path == "/report":
            self.server.reports.put(json.loads(unquote(query)))
        urls, here = json.dumps(self.server.urls), json.dumps(self.server.here)
        body = SCRIPT.replace("URLS", urls).replace("HERE", here).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Log nothing."""


@contextlib.contextmanager
def desk() -> Iterator[Desk]:
    """A desk that serves inside the context."""
    with Desk() as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


def visit(url: str, folder: Path, front: int, reports: "queue.Queue[list[str | None]]") -> Any:
    """Let the browser open a page, and wait for its report; ``app.example`` is the proxy."""
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--remote-debugging-port=0"),
        *(f"--user-data-dir={folder}", f"--host-resolver-rules=MAP app.example 127.0.0.1:{front}"),
    )
    browser = subprocess.Popen(
        ["chromium", *options, url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        return reports.get(timeout=45)
    finally:
        os.killpg(browser.pid, signal.SIGKILL)  # its many processes are a group of their own
        browser.wait()


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@pytest.mark.parametrize("proxy", [haproxy, nginx])
@async_test
async def test_browser_pages_connect_through_a_proxy_unless_their_origin_is_foreign(
    proxy: Proxy, tmp_path: Path
) -> None:
    """A page of the same host and port gets in, with port and without; others do not."""
    if not shutil.which(proxy.__name__):
        pytest.skip(f"{proxy.__name__} is not installed")
    (tmp_path / "my_app.py").write_text(APP)
    front = free_port()
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(RedisServer("valkey"))
        options = ("--app", "my_app:handler", "--forwarded-allow-ips", "127.0.0.1")
        cluster = Cluster(redis.url, stack, *options, folder=tmp_path)
        reception = stack.enter_context(desk())
        page = f'<script src="{reception.here}/script.js"></script>'
        stack.enter_context(proxy(cluster, front, tmp_path, page))
        await eventually(lambda: accepts(front))
        sockets = (f"127.0.0.1:{front}", f"localhost:{front}", "app.example")
        for at, own in enumerate((f"127.0.0.1:{front}", "app.example")):
            reception.urls = [f"ws://{name}/ws/room" for name in sockets]
            browser = (tmp_path / f"browser{at}", front, reception.reports)
            said = await in_thread(visit, f"http://{own}/page", *browser)
            expected = ["127.0.0.1" if name == own else None for name in sockets]
            assert said == expected, own
        for lines, code, client in (
            (("Origin: https://evil.example", "X-Forwarded-Host: evil.example"), b"403", b""),
            (("X-Forwarded-For: 6.6.6.6",), b"101", b"127.0.0.2"),
        ):
            answer = await in_thread(ask, front, *lines)
            assert answer.startswith(b"HTTP/1.1 " + code), (lines, answer)
            assert client in answer
            assert b"6.6.6.6" not in answer


def ask(front: int, *lines: str) -> bytes:
    """A handshake from an address that is not the proxy's; the answer, and the first message."""
    handshake = (
        *("GET /ws/room HTTP/1.1", f"Host: 127.0.0.1:{front}", "Connection: Upgrade"),
        *("Upgrade: websocket", "Sec-WebSocket-Version: 13"),
        *("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *lines, "", ""),
    )
    with socket.create_connection(
        ("127.0.0.1", front), timeout=20, source_address=("127.0.0.2", 0)
    ) as client:
        client.sendall("\r\n".join(handshake).encode())
        said = b""
        while not said.endswith((b"127.0.0.2", b"allowed\n")) and (more := client.recv(65536)):
            said += more
        return said
