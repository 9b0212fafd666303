"""The example of a chat: three workers behind HAProxy, a real browser, and a worker is killed."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from cluster_pool import Publisher
from tests.asgi.servers import Server
from tests.docs.devtools import opened
from tests.docs.hosted import hosted
from tests.docs.pages import ROOT
from tests.proxies import real_haproxy
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import in_thread
from tools.harness.ports import accepts, free_port

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("haproxy")),
        reason="chromium or haproxy is not installed",
    ),
]
CHAT = ROOT / "docs" / "chat"


class Tab:
    """A client as the page is one, of one user in the lobby."""

    def __init__(self, front: int, name: str) -> None:
        self.people: dict[str, bool] = {}
        self.heard: list[dict[str, Any]] = []
        self.code: int | None = None
        self._front, self._name = front, name
        self._link: Any = None

    @property
    def open(self) -> bool:
        return self._link is not None and self.code is None

    async def live(self) -> None:
        """Log in, connect, and read until the close."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._front}/login?name={self._name}", method="POST"
        )
        with await in_thread(urllib.request.urlopen, request) as answer:
            token = json.load(answer)
        url = f"ws://127.0.0.1:{self._front}/ws/lobby"
        offers: Any = ["cluster-pool.raw", f"cluster-pool.token.{token}"]
        async with connect(url, subprotocols=offers, proxy=None) as self._link:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    told = json.loads(await self._link.recv())
                    if "people" in told:
                        self.people = told["people"]
                    else:
                        self.heard.append(told)
        self.code = self._link.close_code

    async def say(self, **order: str) -> None:
        await self._link.send(json.dumps(order))


@contextlib.asynccontextmanager
async def workers(redis: str, folder: Path) -> AsyncIterator[dict[str, Server]]:
    """Three workers, by the node id of each."""
    found: dict[str, Server] = {}
    async with contextlib.AsyncExitStack() as stack, Publisher(redis) as publisher:
        for _ in range(3):
            port = free_port()
            words = ("-m", "uvicorn", "--app-dir", str(CHAT), "app:app", "--port", str(port))
            door = ("--ws", "cluster_pool.uvicorn:Protocol")
            server = await stack.enter_async_context(hosted((*words, *door), folder, port))
            (new,) = {node.id for node in await publisher.nodes()} - found.keys()
            found[new] = server
        yield found


@contextlib.asynccontextmanager
async def tabs_of(front: int, *names: str) -> AsyncIterator[list[Tab]]:
    tabs = [Tab(front, name) for name in names]
    living = [asyncio.create_task(tab.live()) for tab in tabs]
    try:
        await eventually(lambda: all(tab.open for tab in tabs), 30)
        yield tabs
    finally:
        for task in living:
            task.cancel()
        await asyncio.gather(*living, return_exceptions=True)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    with RedisServer("valkey") as server:
        yield server


@async_test
async def test_people_chat_while_a_worker_is_killed(
    redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They see each other come and type; one is told in both tabs; a kicked one stays away."""
    monkeypatch.setenv("CHAT_SECRET", "a secret of thirty-two characters")
    monkeypatch.setenv("CHAT_REDIS", redis.url)
    front = free_port()
    async with workers(redis.url, tmp_path) as nodes, Publisher(redis.url) as publisher:
        ports = [(server.port, free_port()) for server in nodes.values()]
        with real_haproxy(ports, front, tmp_path):
            await eventually(lambda: accepts(front), 20)
            async with (
                tabs_of(front, "bob", "bob", "admin") as (bob, second, admin),
                opened(f"http://127.0.0.1:{front}/", tmp_path) as page,
            ):

                async def shown(id: str, text: str) -> bool:
                    return text in await page.do(f"at('{id}').innerText")

                await page.do("at('name').value = 'alice', at('enter').requestSubmit()")
                await eventually(lambda: shown("state", "in lobby"), 30)
                everyone = {"alice": False, "bob": False, "admin": False}
                await eventually(lambda: bob.people == admin.people == everyone, 20)
                await eventually(lambda: shown("people", "bob"), 20)

                await bob.say(say="<b>hi</b>")
                await eventually(lambda: shown("messages", "bob: <b>hi</b>"), 20)
                await page.do("at('text').value = '@bob psst', at('text').oninput()")
                await eventually(lambda: second.people.get("alice"), 20)
                await page.do("at('say').requestSubmit()")
                private = {"from": "alice", "to": "bob", "text": "psst"}
                await eventually(lambda: private in bob.heard and private in second.heard, 20)
                await eventually(lambda: shown("messages", "2 tabs of bob have got: psst"), 20)
                assert private not in admin.heard
                await eventually(lambda: admin.people == everyone, 20)

                async def alices() -> list[tuple[str, str]]:
                    members = [one async for one in publisher.members("lobby")]
                    return [(one.id, one.node) for one in members if one.user == "alice"]

                ((before, node),) = await alices()
                os.kill(nodes[node].process.pid, signal.SIGKILL)

                async def moved() -> bool:
                    found = await alices()
                    return len(found) == 1 and found[0][0] != before and found[0][1] != node

                await eventually(moved, 60)
                await eventually(lambda: shown("state", "in lobby"), 30)
                async with tabs_of(front, "carol") as (carol,):
                    await eventually(lambda: {"alice", "carol"} <= carol.people.keys(), 20)
                    await page.do("at('text').value = 'back', at('say').requestSubmit()")
                    await eventually(lambda: {"from": "alice", "text": "back"} in carol.heard, 20)
                    async with tabs_of(front, "admin", "dave", "dave") as (boss, *daves):
                        await carol.say(kick="dave")  # which she may not
                        await boss.say(kick="dave")
                        await eventually(lambda: {one.code for one in daves} == {4403}, 20)
                        await eventually(lambda: "dave" not in carol.people, 20)
                        assert carol.open
