"""SIGTERM to programs of users: a FastAPI app under uvicorn, and a plain ``websockets`` server.

Without ``drain_on_signal`` uvicorn 0.54 closed the 40 clients of the first test within 5 ms.
"""

import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, close_code, in_thread

pytestmark = pytest.mark.real

FASTAPI = """
import contextlib, os
from fastapi import FastAPI, WebSocket
from cluster_pool import ClusterPool, ClusterPoolError, Stopping

pool = ClusterPool(os.environ["REDIS"], node_id="app")
stopping = Stopping(float(os.environ["RATE"]), float(os.environ["GRACE"]), announce=0)

@contextlib.asynccontextmanager
async def lifespan(app):
    async with pool, pool.drain_on_signal(stopping):
        yield

app = FastAPI(lifespan=lifespan)

@app.websocket("/{id}")
async def endpoint(websocket: WebSocket, id: str):
    with contextlib.suppress(ClusterPoolError):
        async with pool.accept(websocket, namespace="room", id=id) as connection:
            await connection.run()
"""

PLAIN = """
import asyncio, contextlib, os, sys
from websockets.asyncio.server import serve
from cluster_pool import ClusterPool, ClusterPoolError, Stopping

pool = ClusterPool(os.environ["REDIS"], node_id="app")
stopping = Stopping(float(os.environ["RATE"]), float(os.environ["GRACE"]), announce=0)

async def handler(websocket):
    with contextlib.suppress(ClusterPoolError):
        async with pool.accept(websocket, namespace="room", id=websocket.request.path[1:]) as one:
            await one.run()

async def main():
    async with pool, serve(handler, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        print(f"running on http://127.0.0.1:{port}", file=sys.stderr, flush=True)
        await pool.run_until_signal(stopping)

factory = None
if sys.argv[1] == "uvloop":
    import uvloop
    factory = uvloop.new_event_loop
with asyncio.Runner(loop_factory=factory) as runner:
    runner.run(main())
"""

PROGRAMS = [(kind, loop) for kind in ("uvicorn", "plain") for loop in ("asyncio", "uvloop")]
STATUS = {"uvicorn": -signal.SIGTERM, "plain": 0}
"""uvicorn sends itself the signal again at its end, so that its parent process sees it."""


class Program:
    """A user's program; what it says is kept in a file."""

    def __init__(
        self, kind: str, loop: str, folder: Path, redis: str, rate: float, grace: float
    ) -> None:
        (folder / "app.py").write_text(FASTAPI if kind == "uvicorn" else PLAIN)
        uvicorn = ["-m", "uvicorn", "app:app", "--port", "0", "--loop", loop]
        words = uvicorn if kind == "uvicorn" else ["app.py", loop]
        self._log = folder / "said"
        values = {"REDIS": redis, "RATE": str(rate), "GRACE": str(grace)}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, *words], cwd=folder, stderr=log, env={**os.environ, **values}
            )

    def said(self) -> str:
        return self._log.read_text()

    async def url(self) -> str:
        """Where it listens, once it does."""
        found = await eventually(lambda: re.search(r"running on http(://[\d.:]+)", self.said()), 30)
        return f"ws{found[1]}"


@contextlib.contextmanager
def running(
    kind: str, loop: str, folder: Path, redis: str, *, rate: float, grace: float
) -> Iterator[Program]:
    """A program that is gone when this is left."""
    program = Program(kind, loop, folder, redis, rate, grace)
    try:
        yield program
    finally:
        program.process.kill()
        program.process.wait()


async def connected(url: str, count: int) -> list[ClientConnection]:
    """So many clients, each with an id of its own."""
    return [await connect(f"{url}/c{at}", compression=None) for at in range(count)]


async def close_time(client: ClientConnection) -> float:
    """The time at which a client was closed; checks that it was told to come back."""
    assert await close_code(client) == 1012
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(("kind", "loop"), PROGRAMS)
@async_test
async def test_sigterm_closes_at_the_pace(kind: str, loop: str, tmp_path: Path) -> None:
    """Not all at once, as uvicorn alone would; then the program ends as it always does."""
    with (
        RedisServer("valkey") as redis,
        NodeProcess(redis.url),
        running(kind, loop, tmp_path, redis.url, rate=40, grace=20) as program,
    ):
        clients = await connected(await program.url(), 40)
        program.process.send_signal(signal.SIGTERM)
        times = await asyncio.gather(*map(close_time, clients))
        assert max(times) - min(times) > 0.5, "40 closes at 40 a second came in a burst"
        assert await in_thread(program.process.wait, 30) == STATUS[kind], program.said()
        assert "Traceback" not in program.said()
        with Redis.from_url(f"unix://{redis.path}") as keys:
            assert keys.hlen("cluster_pool:{room}:members") == 0


@pytest.mark.parametrize(("kind", "loop"), PROGRAMS)
@async_test
async def test_a_second_signal_ends_the_program_at_once(
    kind: str, loop: str, tmp_path: Path
) -> None:
    """Newcomers are refused while it drains; remaining clients are told to come back."""
    with (
        RedisServer("valkey") as redis,
        NodeProcess(redis.url),
        running(kind, loop, tmp_path, redis.url, rate=0.1, grace=3600) as program,
    ):
        url = await program.url()
        clients = await connected(url, 40)
        program.process.send_signal(signal.SIGTERM)
        await eventually(lambda: refuses(url, kind))
        assert sum(client.close_code is None for client in clients) >= 38
        program.process.send_signal(signal.SIGINT)
        assert await in_thread(program.process.wait, 30) == STATUS[kind], program.said()
        assert {await close_code(client) for client in clients} == {1012}
        assert "Traceback" not in program.said()


async def refuses(url: str, kind: str) -> bool:
    """Whether a newcomer is turned away: 503 and Retry-After, or 1013 where it was open already."""
    return await answer_to_newcomer(url) == ((503, "1") if kind == "uvicorn" else 1013)


async def answer_to_newcomer(url: str) -> tuple[int, str | None] | int | None:
    """The status and Retry-After of a refusal; or the close code, None for a welcome."""
    try:
        async with connect(f"{url}/late", compression=None) as late:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(late.wait_closed(), 0.2)
            return late.close_code
    except InvalidStatus as error:
        return error.response.status_code, error.response.headers.get("Retry-After")
