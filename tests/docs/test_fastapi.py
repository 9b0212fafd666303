"""The pages about FastAPI: the chat on four workers of uvicorn, others by a test client."""

import asyncio
import contextlib
import os
import re
import shutil
import signal
import subprocess
import warnings
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from cluster_pool import NodeState, Publisher
from tests.asgi.servers import Server
from tests.docs.hosted import hosted
from tests.docs.pages import block_with
from tests.docs.test_console import words_of
from tests.docs.test_python import URL, run
from tests.servers import BINARIES, RedisServer
from tests.support import async_test, eventually
from tools.harness.ports import free_port

pytest.importorskip("httpx")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of the next HTTP client that it will use
    from fastapi.testclient import TestClient
    from starlette.testclient import WebSocketDenialResponse

PAGE = "docs/embedding.md"
WORKERS = 4
UP = "Application startup complete"


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file, none of which harms it."""
    with RedisServer(next(iter(BINARIES))) as server:
        yield server


# -- the quick start -----------------------------------------------------------------------


class Tab:
    """A client as the page of the chat is one: it keeps what it reads, and comes back.

    Attributes:
        read: the messages.
        codes: the close codes.
    """

    def __init__(self, server: Server, id: int) -> None:
        self.id = id
        self.read: list[str] = []
        self.codes: list[int | None] = []
        self._server = server
        self._client: Any = None

    async def live(self) -> None:
        """Connect again after each close, a moment later."""
        while True:
            with contextlib.suppress(OSError, InvalidHandshake):
                async with connect(self._server.url(f"/ws/{self.id}"), proxy=None) as client:
                    self._client = client
                    with contextlib.suppress(ConnectionClosed):
                        while True:
                            self.read.append(str(await client.recv()))
                self._client = None
                self.codes.append(client.close_code)
            await asyncio.sleep(0.05)

    @property
    def connected(self) -> bool:
        return self._client is not None

    async def says(self, text: str) -> None:
        """Send."""
        await self._client.send(text)


@pytest.fixture
def chat(redis: RedisServer, tmp_path: Path) -> Iterator[Server]:
    """The chat of the page, started by its own command line on a free port.

    A test has a minute from then on: four workers start slowly on a busy machine.
    """
    block = block_with("Client #{client_id} says", "docs/quick-start.md")
    (tmp_path / "chat.py").write_text(block.text.replace(URL, redis.url))
    (line,) = re.findall(r"^\$ (uvicorn chat:app.*)$", block_with("uvicorn chat:app").text, re.M)
    port = free_port()
    words = ("-m", *words_of(line), "--port", str(port))
    with asyncio.Runner() as runner:
        hosting = hosted(words, tmp_path, port, all_up)
        yield runner.run(hosting.__aenter__())
        runner.run(hosting.__aexit__(None, None, None))


def all_up(server: Server) -> bool:
    """Whether all its workers accept clients."""
    return server.said().count(UP) >= WORKERS


@contextlib.asynccontextmanager
async def tabs_of(server: Server, count: int) -> AsyncIterator[list[Tab]]:
    """So many tabs, all connected."""
    tabs = [Tab(server, id) for id in range(count)]
    living = [asyncio.create_task(tab.live()) for tab in tabs]
    try:
        await eventually(lambda: all(tab.connected for tab in tabs), 20)
        yield tabs
    finally:
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)


@pytest.mark.slow
@async_test
async def test_the_chat_survives_the_death_of_a_worker(redis: RedisServer, chat: Server) -> None:
    """All tabs talk to each other; those of a killed worker come back, the others stay.

    At the end each is told to come back. None is cut.
    """
    server = chat
    async with tabs_of(server, 16) as tabs, Publisher(redis.url) as publisher:

        def heard(text: str) -> bool:
            return all(text in tab.read for tab in tabs)

        assert len(await publisher.nodes()) == WORKERS
        await tabs[0].says("hello")
        await eventually(lambda: heard("Client #0 says: hello"), 20)
        assert "You wrote: hello" in tabs[0].read
        assert "You wrote: hello" not in tabs[1].read
        assert await publisher.broadcast_message("chat", "Hello from the shell")
        await eventually(lambda: heard("Hello from the shell"), 20)

        pids = re.findall(r"Started server process \[(\d+)\]", server.said())
        assert len(pids) == WORKERS
        victims: list[Tab] = []
        killed: list[str] = []
        for pid in pids:  # the first of them that has tabs
            os.kill(int(pid), signal.SIGKILL)
            killed.append(pid)
            await eventually(lambda pid=pid: f"Child process [{pid}] died" in server.said(), 20)
            victims = [tab for tab in tabs if tab.codes]
            if victims:
                break
        assert {code for tab in victims for code in tab.codes} == {1006}
        await eventually(lambda: all(tab.connected for tab in tabs), 20)
        await tabs[1].says("still there?")
        await eventually(lambda: heard("Client #1 says: still there?"), 20)
        assert [tab.codes for tab in tabs if tab not in victims and tab.codes] == []
        await eventually(lambda: server.said().count(UP) >= WORKERS + len(killed), 30)
        members = {member.id async for member in publisher.members("chat")}
        assert members == {str(tab.id) for tab in tabs}

        os.killpg(server.process.pid, signal.SIGINT)  # Ctrl-C
        await server.ended()
        assert {tab.codes[-1] for tab in tabs} == {1012}
        assert "Traceback" not in server.said(), server.said()


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
@async_test
async def test_the_page_of_the_chat_connects_and_comes_back(
    redis: RedisServer, chat: Server, tmp_path: Path
) -> None:
    """In a real browser: it is a member, and is one again after a close."""
    async with Publisher(redis.url) as publisher, tabs_of(chat, 1) as (tab,):

        async def page() -> str | None:
            ids = {member.id async for member in publisher.members("chat")} - {str(tab.id)}
            return next(iter(ids), None)

        with browser(f"http://127.0.0.1:{chat.port}/", tmp_path):
            id = await eventually(page, 45)
            left = f"Client #{id} left the chat"
            for _ in range(4):  # one that is closed before its handshake is answered says no word
                assert await publisher.close("chat", id, 1012)
                with contextlib.suppress(AssertionError):
                    await eventually(lambda: left in tab.read, 10)
                assert await eventually(page, 20) == id
                if left in tab.read:
                    break
            assert left in tab.read


@contextlib.contextmanager
def browser(url: str, folder: Path) -> Iterator[None]:
    """A browser that shows a page."""
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--remote-debugging-port=0"),
        f"--user-data-dir={folder / 'profile'}",
    )
    process = subprocess.Popen(
        ["chromium", *options, url],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # its many processes are a group of their own
        process.wait()


# -- embedding -----------------------------------------------------------------------------


@pytest.mark.parametrize("page", ["README.md", PAGE])
def test_the_first_example_runs(page: str, redis: RedisServer) -> None:
    """Two users of a room get each other's messages."""
    app = run('@app.websocket("/ws/{room}/{user}")', redis.url, page)["app"]
    with (
        TestClient(app) as client,
        client.websocket_connect("/ws/room/alice") as alice,
        client.websocket_connect("/ws/room/bob") as bob,
    ):
        alice.send_text("hello")
        assert bob.receive_text() == "hello"


def test_the_example_of_two_pools_runs(redis: RedisServer) -> None:
    """Both run as long as the application."""
    names = run("news.lifespan", redis.url, PAGE)
    pools = names["chat"], names["news"]
    with TestClient(names["two_pools"]):
        assert all(pool.ready for pool in pools)
    assert {pool.state for pool in pools} == {NodeState.STOPPED}


def test_the_example_of_dependencies_runs(redis: RedisServer) -> None:
    """The session decides, for requests and for WebSockets alike; tests replace the pool."""
    names = run("def get_user(", redis.url, PAGE)
    app, cookie = names["app"], {"cookie": "session=random-session-id"}
    with TestClient(app) as client:
        with client.websocket_connect("/ws/room:7", headers=cookie) as alice:
            alice.send_text("hello")
            assert alice.receive_text() == "alice: hello"
            said = client.post("/room:7?text=hi", headers=cookie)
            assert (said.status_code, said.json()) == (200, 1)
            assert alice.receive_text() == "alice: hi"
        for headers, path, status in (({}, "/ws/room:7", 401), (cookie, "/ws/other", 403)):
            with (
                pytest.raises(WebSocketDenialResponse) as refused,
                client.websocket_connect(path, headers=headers),
            ):
                pytest.fail("it was accepted")
            assert refused.value.status_code == status
        assert client.post("/room:7?text=hi").status_code == 401
        replaced = app.dependency_overrides[names["get_pool"]] = lambda: None
        assert replaced() is None
        with pytest.raises(AttributeError, match="broadcast_message"):
            client.post("/room:7?text=hi", headers=cookie)


def test_the_example_of_operations_runs(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a token in its environment and without."""
    for token, status in (("t0ken", 200), ("", 404)):
        monkeypatch.setenv("OPERATIONS_TOKEN", token)
        app = run("watched.operations", redis.url, PAGE)["with_operations"]
        with TestClient(app) as client:
            assert client.get("/ops/healthz").status_code == 200
            assert client.get("/ops/readyz").text == "ready\n"
            bearer = {"Authorization": "Bearer t0ken"}
            for path in ("/ops/metrics", "/ops/status"):
                assert client.get(path, headers=bearer).status_code == status
