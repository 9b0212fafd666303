"""``pool.lifespan`` on real servers: two pools, several workers, reloads, a mounted application."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from tests.asgi.servers import Server, installed, running
from tests.cluster.test_signals import close_time
from tests.servers import BINARIES, RedisServer
from tests.support import async_test, eventually

APP = "tests.asgi.two_pools:app"
HOSTS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "uvicorn": ("uvicorn websockets-sansio", 1, ()),
    "uvicorn ours": ("uvicorn ours", 1, ()),
    "uvicorn with workers": ("uvicorn ours", 4, ("--workers", "4")),
    "gunicorn with workers": ("gunicorn", 2, ("-w", "2", "--no-control-socket")),
    "hypercorn": ("hypercorn", 1, ("-w", "0")),
    "granian": ("granian", 1, ()),
}
"""Servers, their workers, and options for them."""


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file, none of which harms it."""
    with RedisServer(next(iter(BINARIES))) as server:
        yield server


@contextlib.asynccontextmanager
async def on(
    host: str, redis: RedisServer, *options: str, rate: float = 20, grace: float = 20
) -> AsyncIterator[Server]:
    """The application on one of the servers, in all of its workers."""
    name, workers, own = HOSTS[host]
    if not installed(name):
        pytest.skip(f"{name} is not installed")
    values = {"RATE": str(rate), "GRACE": str(grace)}
    async with running(name, redis.url, *own, *options, app=APP, **values) as server:
        if workers > 1:
            up = "Application startup complete"
            await eventually(lambda: server.said().count(up) >= workers, 30)
        yield server


async def clients_of(server: Server, path: str, count: int = 12) -> list[ClientConnection]:
    """So many clients at once, each with an id of its own."""
    urls = [server.url(f"{path}/{user}") for user in range(count)]

    async def client(url: str) -> ClientConnection:
        return await connect(url, compression=None, proxy=None)

    return await asyncio.gather(*map(client, urls))


async def answered(client: ClientConnection) -> str:
    """The process that answers a client."""
    await client.send("hello")
    pid, text = str(await client.recv()).split()
    assert text == "hello"
    return pid


@pytest.mark.parametrize("host", HOSTS)
@async_test
async def test_two_pools_of_an_application_drain_together_before_the_server_stops(
    host: str, redis: RedisServer
) -> None:
    """Each at its pace, in every worker; a mounted application uses the pool of its parent.

    Then the lifespan of the application ends, and nothing of it stays in Redis.
    """
    async with on(host, redis) as server:
        chat = await clients_of(server, "/chat")
        news = await clients_of(server, "/news")
        pids = set(await asyncio.gather(*map(answered, chat + news)))
        assert len(pids) > 1 or HOSTS[host][1] == 1
        server.process.send_signal(signal.SIGTERM)
        times = await asyncio.gather(*map(close_time, chat + news))
        of_chat, of_news = times[: len(chat)], times[len(chat) :]
        for one, other in ((of_chat, of_news), (of_news, of_chat)):
            assert max(one) - min(one) > 0.4 * len(one) / 20, "they were closed in a burst"
            assert min(one) < max(other), "one pool waited for the other"
        assert await server.ended() in (0, -signal.SIGTERM)
        assert server.said().count("closed behind stopped and stopped") >= len(pids)
        assert "Traceback" not in server.said()
    with Redis.from_url(f"unix://{redis.path}") as keys:
        assert keys.keys("cluster_pool:*:{room}:members") == []


@async_test
async def test_a_reload_closes_at_its_grace_and_the_next_process_goes_on(
    redis: RedisServer, tmp_path: Path
) -> None:
    """The client is told to come back, and does so until the new code runs."""
    watched = tmp_path / "watched.py"
    watched.touch()
    options = ("--reload", "--reload-dir", str(tmp_path))
    async with on("uvicorn ours", redis, *options, grace=1) as server:
        for reload in range(2):
            async with server.connect("/chat/alice") as client:
                pid = await answered(client)
                os.utime(watched, (reload + 1e9, 4e9 + reload))
                await close_time(client)
            assert await eventually(lambda: pid_of(server), 20) != pid
        assert "Traceback" not in server.said()
        server.process.send_signal(signal.SIGTERM)
        assert await server.ended() in (0, -signal.SIGTERM)


async def pid_of(server: Server) -> str | None:
    """The process that answers a newcomer; None while none is accepted."""
    with contextlib.suppress(OSError, WebSocketException):
        async with server.connect("/chat/alice") as client:
            return await answered(client)
    return None


@async_test
async def test_a_worker_that_is_killed_leaves_the_others_alone(redis: RedisServer) -> None:
    """Its clients come back under their ids; uvicorn starts another worker."""
    async with on("uvicorn with workers", redis) as server:
        clients = await clients_of(server, "/chat", 16)
        pids = await asyncio.gather(*map(answered, clients))
        killed = max(set(pids), key=pids.count)
        os.kill(int(killed), signal.SIGKILL)
        gone = [client for client, pid in zip(clients, pids, strict=True) if pid == killed]
        await asyncio.gather(*[client.wait_closed() for client in gone])
        for user, pid in enumerate(pids):
            if pid != killed:
                assert await answered(clients[user]) == pid
                continue
            async with server.connect(f"/chat/{user}", open_timeout=20) as client:
                assert await answered(client) != killed
        await eventually(lambda: f"Child process [{killed}] died" in server.said(), 20)
