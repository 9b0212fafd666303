"""The pages about other frameworks: each block runs in a process, with real clients."""

import asyncio
import contextlib
import importlib.util
import signal
import socket
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from cluster_pool import Limits, Publisher, SendResult
from tests.asgi.servers import Server
from tests.docs.hosted import hosted
from tests.docs.pages import block_with
from tests.docs.test_python import URL
from tests.servers import BINARIES, RedisServer
from tests.support import async_test, eventually
from tools.harness.frames import request
from tools.harness.nodes import close_code
from tools.harness.ports import free_port

MEGABYTES = Limits(message_bytes=2**24, outbox_bytes=2**24)
UVICORN = ("-m", "uvicorn", "example:app", "--port", "PORT")
OURS = (*UVICORN, "--ws", "cluster_pool.uvicorn:Protocol")

SIZE = str(2**24)
DAPHNE = (
    *("-m", "daphne", "--ping-interval", "2", "--ping-timeout", "2"),
    *("--websocket-max-message-size", SIZE, "--websocket-max-frame-size", SIZE),
)


@dataclass(frozen=True)
class Framework:
    """A block about a framework.

    Attributes:
        module: what must be installed.
        text: what stands in the block, and in no other.
        words: the command that runs it.
        foreign: the answer to a page that may not connect: an HTTP status or a close code.
        taken: the answer to a second client under an id, where ids are not taken over.
        drains: whether its server lets the pool drain when it is told to stop.
        waits: whether its server holds senders back while a client reads nothing.
    """

    module: str
    text: str
    words: Sequence[str]
    foreign: int = 403
    taken: int = 409
    drains: bool = True
    waits: bool = True


FRAMEWORKS = {
    "litestar": Framework("litestar", "app = Litestar(", UVICORN),
    "aiohttp": Framework("aiohttp", "web.run_app(app", ("example.py",)),
    "quart, hypercorn": Framework(
        "quart",
        "from quart import Quart",
        ("-m", "hypercorn", "-w", "0", "-b", "127.0.0.1:PORT", "example:app"),
    ),
    "quart, our protocol": Framework("quart", "from quart import Quart", OURS),
    "sanic": Framework("sanic", "from sanic import Sanic", ("example.py",), 1008, 4409),
    "channels": Framework(
        "channels",
        "AsyncWebsocketConsumer):",
        (*DAPHNE, "-p", "PORT", "example:app"),
        taken=4409,
        drains=False,
        waits=False,
    ),
}
every_framework = pytest.mark.parametrize("name", FRAMEWORKS)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file, none of which harms it."""
    with RedisServer(next(iter(BINARIES))) as server:
        yield server


def written(
    text: str, words: Sequence[str], redis: RedisServer, folder: Path, port: int, options: str = ""
) -> list[str]:
    """Write the block with this text as a module, and give the command that runs it."""
    source = block_with(text, "docs/embedding.md").text
    source = source.replace(f'ClusterPool("{URL}"', f'ClusterPool("{redis.url}"{options}')
    source = source.replace(URL, redis.url).replace("port=8000", f"port={port}")
    if options:
        source = f"from cluster_pool import Limits, Timing\n{source}"
    (folder / "example.py").write_text(source)
    return [word.replace("PORT", str(port)) for word in words]


@contextlib.asynccontextmanager
async def running(
    name: str, redis: RedisServer, folder: Path, options: str = ""
) -> AsyncIterator[Server]:
    """The server of a framework's block, whose pool has these options, too."""
    framework = FRAMEWORKS[name]
    if importlib.util.find_spec(framework.module) is None:
        pytest.skip(f"{framework.module} is not installed")
    port = free_port()
    command = written(framework.text, framework.words, redis, folder, port, options)
    async with hosted(command, folder, port) as server:
        yield server


def page_of(server: Server, path: str) -> Any:
    """A client on a page of the server itself, as Channels demands."""
    return server.connect(path, origin=f"http://127.0.0.1:{server.port}", max_size=None)


@every_framework
@async_test
async def test_members_talk_leave_and_are_closed(
    name: str, redis: RedisServer, tmp_path: Path
) -> None:
    """Texts and bytes; a close of either side; a takeover; a foreign page; a drain at the end."""
    async with (
        running(name, redis, tmp_path) as server,
        Publisher(redis.url) as publisher,
        page_of(server, "/ws/room/alice") as alice,
        page_of(server, "/ws/room/bob") as bob,
    ):
        await eventually(lambda: counted(publisher, 2))
        for message in ("hello", b"\0\xff", "x" * 100_000):
            await alice.send(message)
            assert await bob.recv() == message
        assert await publisher.send("room", "alice", "hi", confirm=True)
        assert await alice.recv() == "hi"
        assert await publisher.close("room", "bob", 4001, "bye")
        assert await close_code(bob) == 4001
        async with page_of(server, "/ws/room/alice") as newer:
            assert await close_code(alice) == 4409
            assert await publisher.send("room", "alice", "hi", confirm=True)
            assert await newer.recv() == "hi"
        await eventually(lambda: counted(publisher, 0))
        assert await answer(server.url("/ws/room/carol"), "https://evil.example") == (
            FRAMEWORKS[name].foreign
        )
        assert await counted(publisher, 0)
        if FRAMEWORKS[name].drains:
            async with page_of(server, "/ws/room/dave") as dave:
                await eventually(lambda: counted(publisher, 1))
                server.process.send_signal(signal.SIGTERM)
                assert await close_code(dave) == 1012
            await server.ended()
        assert "Traceback" not in server.said(), server.said()


@contextlib.asynccontextmanager
async def empty(publisher: Publisher, namespace: str) -> AsyncIterator[None]:
    """Begin without the member of a server that was killed, which stays as long as its lease."""
    await eventually(lambda: counted(publisher, 0, namespace), 40)
    yield


@every_framework
@async_test
async def test_a_client_whose_id_is_taken_is_refused(
    name: str, redis: RedisServer, tmp_path: Path
) -> None:
    """By a status where the pool answers the handshake, by a close code elsewhere."""
    async with (
        running(name, redis, tmp_path, ', on_conflict="reject"') as server,
        Publisher(redis.url) as publisher,
        empty(publisher, "taken"),
        page_of(server, "/ws/taken/alice"),
    ):
        await eventually(lambda: counted(publisher, 1, "taken"))
        own = f"http://127.0.0.1:{server.port}"
        for _ in range(3):
            assert await answer(server.url("/ws/taken/alice"), own) == FRAMEWORKS[name].taken
        assert await counted(publisher, 1, "taken")
        not_allowed = server.url(f"/ws/taken/{'x' * 300}")
        assert await answer(not_allowed, own) in (400, 1008, 4013)
        assert "Traceback" not in server.said(), server.said()


@every_framework
@async_test
async def test_ten_megabytes_come_whole(name: str, redis: RedisServer, tmp_path: Path) -> None:
    """To a client, behind and ahead of small ones."""
    limits = ", limits=Limits(message_bytes=2**24, outbox_bytes=2**24)"
    async with (
        running(name, redis, tmp_path, limits) as server,
        Publisher(redis.url, limits=MEGABYTES) as publisher,
        empty(publisher, "large"),
        page_of(server, "/ws/large/alice") as alice,
    ):
        await eventually(lambda: counted(publisher, 1, "large"))
        for message in ("first", "x" * 10_000_000, b"\xff" * 10_000_000, "last"):
            assert await publisher.send("large", "alice", message, confirm=True, timeout=20)
            assert await alice.recv() == message
        assert "Traceback" not in server.said(), server.said()


@every_framework
@async_test
async def test_a_client_that_vanishes_or_reads_nothing_is_no_member_for_long(
    name: str, redis: RedisServer, tmp_path: Path
) -> None:
    """A reset ends a membership at once, and a full outbox, or else the pings of the server."""
    options = ", limits=Limits(outbox_bytes=2**20), timing=Timing(flush=1, close=1)"
    async with (
        running(name, redis, tmp_path, options) as server,
        Publisher(redis.url) as publisher,
        empty(publisher, "slow"),
        page_of(server, "/ws/slow/bob") as bob,
    ):
        for user in ("reset", "deaf"):
            client = await asyncio.to_thread(deaf, server.port, f"/ws/slow/{user}")
            with client:
                await eventually(lambda: counted(publisher, 2, "slow"))
                if user == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    client.close()
                elif FRAMEWORKS[name].waits:
                    await eventually(lambda: is_refused(publisher, "deaf"), 30)
                await eventually(lambda: counted(publisher, 1, "slow"), 30)
        assert await publisher.send("slow", "bob", "hi", confirm=True)
        assert await bob.recv() == "hi"


async def is_refused(publisher: Publisher, user: str) -> bool:
    """Whether a message that is large enough to fill any buffer soon is not delivered."""
    message = "x" * 500_000
    sent = await publisher.send("slow", user, message, confirm=True)
    return sent in (SendResult.REFUSED, SendResult.ABSENT)


def deaf(port: int, path: str) -> socket.socket:
    """A client that has had its handshake answered, and reads nothing more."""
    client = socket.create_connection(("127.0.0.1", port))
    host = f"127.0.0.1:{port}"
    asked = request(path, f"Origin: http://{host}").replace(b"Host: x", f"Host: {host}".encode())
    client.sendall(asked)
    client.settimeout(20)
    assert client.recv(4096).startswith(b"HTTP/1.1 101 ")
    return client


async def counted(publisher: Publisher, count: int, room: str = "room") -> bool:
    return await publisher.count(room) == count


async def answer(url: str, origin: str) -> int:
    """The status, or the close code, that refuses a client of this origin."""
    try:
        async with connect(url, origin=origin, proxy=None) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            return await close_code(client) or 0
    except InvalidStatus as refused:
        return refused.response.status_code


@pytest.mark.skipif(importlib.util.find_spec("channels") is None, reason="it is not installed")
@async_test
async def test_a_view_of_django_publishes(redis: RedisServer, tmp_path: Path) -> None:
    """Its thread has no event loop; the consumers of the same process get the message."""
    async with (
        running("channels", redis, tmp_path) as server,
        Publisher(redis.url) as publisher,
        page_of(server, "/ws/hall/alice") as alice,
    ):
        await eventually(lambda: counted(publisher, 1, "hall"))
        page = f"http://127.0.0.1:{server.port}/announce/hall"
        assert await asyncio.to_thread(status, page) == 200
        assert await alice.recv() == "The room closes soon."


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
        assert await answer(server.url("/any"), "https://evil.example") == 403
        server.process.send_signal(signal.SIGTERM)
        assert {await close_code(one), await close_code(other)} == {1012}
        await server.ended()
        assert "Traceback" not in server.said(), server.said()


def status(url: str) -> int:
    """The status of a request."""
    with urllib.request.urlopen(url, timeout=20) as answer:
        return int(answer.status)
