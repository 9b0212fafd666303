"""The page about token streams: an answer survives a reload and a deploy."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from cluster_pool import Publisher
from tests.asgi.servers import Server
from tests.docs.hosted import hosted
from tests.docs.pages import block_with
from tests.docs.test_python import URL
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.ports import free_port

PAGE = "docs/history.md"
TOKENS = [f"word {number} " for number in range(120)]

pytestmark = [
    pytest.mark.real,
    pytest.mark.parametrize("own_server", ["valkey"], indirect=True),
]


class Tab:
    """A page that shows one answer, and comes back to the next server when it is closed.

    Attributes:
        repeats: tokens that have come twice.
    """

    def __init__(self, page: str, servers: list[Server]) -> None:
        self.parts: dict[int, str] = {}
        self.codes: list[int | None] = []
        self.repeats = 0
        self.ended = False
        self._path = f"/answers/7?page={page}"
        self._servers = servers

    async def live(self) -> None:
        """Read until the answer has ended."""
        while not self.ended:
            async with self._servers[len(self.codes)].connect(self._path) as client:
                try:
                    await self._read(client)
                except ConnectionClosed:
                    self.codes.append(client.close_code)

    async def _read(self, client: Any) -> None:
        while not self.ended:
            token = json.loads(await client.recv())
            self.repeats += token["at"] in self.parts
            self.parts[token["at"]] = token.get("text", "")
            self.ended = "end" in token


@pytest.mark.slow
@async_test
async def test_an_answer_survives_a_reload_and_a_deploy(
    own_server: RedisServer, tmp_path: Path
) -> None:
    """One tab is there all the while and comes back, another is opened in the middle of it, and one
    when all is over: each has the whole answer, and the first no token twice."""
    block = block_with("hand it to your workers", PAGE).text.replace(URL, own_server.url)
    (tmp_path / "answers.py").write_text(block)
    worker: dict[str, Any] = {}
    exec(block_with("async def tell", PAGE).text, worker)
    ports = free_port(), free_port()
    words = ("-m", "uvicorn", "answers:app", "--ws", "cluster_pool.uvicorn:Protocol", "--port")
    async with (
        hosted((*words, str(ports[0])), tmp_path, ports[0]) as old,
        hosted((*words, str(ports[1])), tmp_path, ports[1]) as new,
        Publisher(own_server.url) as publisher,
        asyncio.TaskGroup() as group,
    ):
        first, second, last = Tab("a", [old, new]), Tab("b", [new]), Tab("c", [new])
        group.create_task(first.live())
        await eventually(lambda: _count(publisher, 1), 30)
        told = asyncio.Semaphore(0)

        async def tokens() -> AsyncIterator[str]:
            for token in TOKENS:
                await told.acquire()
                yield token

        answering = group.create_task(worker["tell"](publisher, "7", tokens()))
        for _ in range(40):
            told.release()
        await eventually(lambda: len(first.parts) == 40, 30)
        group.create_task(second.live())
        old.process.send_signal(signal.SIGTERM)
        for _ in range(60):
            told.release()
            await asyncio.sleep(0.01)
        await eventually(lambda: first.codes, 60)  # it announces its drain first
        for _ in range(20):
            told.release()
        await answering
        await eventually(lambda: first.ended and second.ended, 30)
        await asyncio.wait_for(last.live(), 30)
        for tab in (first, second, last):
            assert "".join(tab.parts[at] for at in sorted(tab.parts)) == "".join(TOKENS)
        assert first.codes == [1012]
        assert first.repeats == 0


async def _count(publisher: Publisher, count: int) -> bool:
    return await publisher.count("answer:7") == count
