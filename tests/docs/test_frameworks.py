"""The pages about other frameworks: each block runs in a process, with real clients."""

import asyncio
import importlib.util
import signal
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cluster_pool import Publisher
from tests.docs.hosted import hosted
from tests.docs.pages import block_with
from tests.docs.test_python import URL
from tests.servers import BINARIES, RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import close_code
from tools.harness.ports import free_port

FRAMEWORKS = {
    "litestar": ("app = Litestar(", ("-m", "uvicorn", "example:app", "--port", "PORT"), 403),
    "aiohttp": ("web.run_app(app", ("example.py",), 403),
}
"""The text of a block, the command that runs it, and its answer to a page that may not connect."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file, none of which harms it."""
    with RedisServer(next(iter(BINARIES))) as server:
        yield server


def written(
    text: str, words: Sequence[str], redis: RedisServer, folder: Path, port: int
) -> list[str]:
    """Write the block with this text as a module, and give the command that runs it."""
    source = block_with(text, "docs/embedding.md").text.replace(URL, redis.url)
    (folder / "example.py").write_text(source.replace("port=8000", f"port={port}"))
    return [word.replace("PORT", str(port)) for word in words]


@pytest.mark.parametrize("name", FRAMEWORKS)
@async_test
async def test_members_talk_leave_and_are_closed(
    name: str, redis: RedisServer, tmp_path: Path
) -> None:
    """Texts and bytes; a close of either side; a takeover; a foreign page; a drain at the end."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    text, words, foreign = FRAMEWORKS[name]
    port = free_port()
    command = written(text, words, redis, tmp_path, port)
    async with (
        hosted(command, tmp_path, port) as server,
        Publisher(redis.url) as publisher,
        server.connect("/ws/room/alice") as alice,
        server.connect("/ws/room/bob") as bob,
    ):
        for message in ("hello", b"\0\xff", "x" * 100_000):
            await alice.send(message)
            assert await bob.recv() == message
        assert await publisher.send("room", "alice", "hi", confirm=True)
        assert await alice.recv() == "hi"
        assert await publisher.close("room", "bob", 4001, "bye")
        assert await close_code(bob) == 4001
        async with server.connect("/ws/room/alice") as newer:
            assert await close_code(alice) == 4409
            assert await publisher.send("room", "alice", "hi", confirm=True)
            assert await newer.recv() == "hi"
        await eventually(lambda: empty(publisher))
        assert await refused(server.url("/ws/room/carol")) == foreign
        assert await empty(publisher)
        async with server.connect("/ws/room/dave") as dave:
            await eventually(lambda: member(publisher, "dave"))
            server.process.send_signal(signal.SIGTERM)
            assert await close_code(dave) == 1012
        await server.ended()
        assert "Traceback" not in server.said(), server.said()


async def empty(publisher: Publisher) -> bool:
    return await publisher.count("room") == 0


async def member(publisher: Publisher, id: str) -> bool:
    return await publisher.locate("room", id) is not None


async def refused(url: str) -> int:
    """The status that refuses a page of a foreign origin."""
    with pytest.raises(InvalidStatus) as caught:
        await connect(url, origin="https://evil.example", proxy=None)
    return caught.value.response.status_code


@async_test
async def test_an_application_beside_another_answers_websockets_alone(
    redis: RedisServer, tmp_path: Path
) -> None:
    """Requests go to the other one; the pool lives and drains with the server."""
    port = free_port()
    words = ("-m", "uvicorn", "example:app", "--port", "PORT")
    command = written("life = Router(", words, redis, tmp_path, port)
    async with (
        hosted(command, tmp_path, port) as server,
        server.connect("/any") as one,
        server.connect("/other") as other,
    ):
        await one.send("hello")
        assert [await one.recv(), await other.recv()] == ["hello", "hello"]
        assert await asyncio.to_thread(status, f"http://127.0.0.1:{port}/page") == 204
        assert await refused(server.url("/any")) == 403
        server.process.send_signal(signal.SIGTERM)
        assert {await close_code(one), await close_code(other)} == {1012}
        await server.ended()
        assert "Traceback" not in server.said(), server.said()


def status(url: str) -> int:
    """The status of a request."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        return int(answer.status)
