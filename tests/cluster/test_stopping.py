"""How ASGI servers and programs end under ``drain_on_signal``: real processes, real clients."""

import asyncio
import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from redis import Redis
from websockets.asyncio.client import ClientConnection, connect

from tests.cluster.test_signals import FASTAPI, close_time
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, close_code, in_thread

pytestmark = pytest.mark.real

PROGRAM = """
import asyncio, contextlib, os, signal, sys
from websockets.asyncio.server import serve
from cluster_pool import ClusterPool, ClusterPoolError, Stopping

pool = ClusterPool(os.environ["REDIS"], node_id="app")
stopping = Stopping(float(os.environ["RATE"]), float(os.environ["GRACE"]), announce=0)
told = asyncio.Event()

async def handler(websocket):
    with contextlib.suppress(ClusterPoolError):
        async with pool.accept(websocket, namespace="room", id=websocket.request.path[1:]) as one:
            async for message in one:
                told.set()

async def main():
    if "handler" in sys.argv:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)
    async with pool, serve(handler, "127.0.0.1", int(os.environ["PORT"])):
        async with pool.drain_on_signal(stopping):
            await told.wait()
    print("left", flush=True)

asyncio.run(main())
"""
"""A program that ends on request: of a client, or by SIGTERM if it has a handler for that."""

APP = FASTAPI.replace('node_id="app"', "").replace(
    '@app.websocket("/{id}")',
    '@app.get("/")\nasync def root():\n    return "ok"\n\n@app.websocket("/{id}")',
)

Words = Callable[[str], Sequence[str]]
SERVERS: dict[str, tuple[str, Words]] = {
    "uvicorn": ("uvicorn", lambda port: ("app:app", "--port", port)),
    "uvicorn 2": ("uvicorn", lambda port: ("app:app", "--port", port, "--workers", "2")),
    "gunicorn": (
        "gunicorn",
        lambda port: (
            *("app:app", "-b", f"127.0.0.1:{port}", "-w", "2"),
            *("-k", "uvicorn_worker.UvicornWorker", "--no-control-socket"),
        ),
    ),
    "hypercorn": ("hypercorn", lambda port: ("app:app", "-b", f"127.0.0.1:{port}", "-w", "0")),
    "hypercorn uvloop": (
        "hypercorn",
        lambda port: ("app:app", "-b", f"127.0.0.1:{port}", "-w", "0", "-k", "uvloop"),
    ),
    "granian": (
        "granian",
        lambda port: ("app:app", "--interface", "asgi", "--port", port, "--loop", "asyncio"),
    ),
    "granian uvloop": (
        "granian",
        lambda port: ("app:app", "--interface", "asgi", "--port", port, "--loop", "uvloop"),
    ),
}
NEW_PIDS = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def may_unshare() -> bool:
    """Whether this user may make a process that is PID 1."""
    found = shutil.which("unshare") is not None
    return found and not subprocess.run([*NEW_PIDS, "true"], capture_output=True).returncode


class Program:
    """A process group; what it says is kept in a file."""

    def __init__(
        self, words: Sequence[str], folder: Path, redis: str, rate: float, grace: float
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        values = {"REDIS": redis, "RATE": str(rate), "GRACE": str(grace), "PORT": self.port}
        self._said = folder / "said"
        with self._said.open("w") as said:
            self.process = subprocess.Popen(
                [word.replace("PORT", self.port) for word in words],
                cwd=folder,
                stdout=said,
                stderr=said,
                start_new_session=True,
                env={**os.environ, **values},
            )

    def said(self) -> str:
        return self._said.read_text()

    def children(self) -> list[int]:
        """The processes that the first one has started."""
        own = self.process.pid
        return list(map(int, Path(f"/proc/{own}/task/{own}/children").read_text().split()))

    def signal(self, number: int) -> None:
        """To all of the group, as a terminal and systemd do."""
        os.killpg(self.process.pid, number)

    async def connected(self, count: int) -> list[ClientConnection]:
        """So many clients, once it listens."""
        await eventually(self._up, 120)
        return [
            await connect(f"ws://127.0.0.1:{self.port}/c{at}", compression=None)
            for at in range(count)
        ]

    async def _up(self) -> bool:
        assert self.process.poll() is None, self.said()
        try:
            async with connect(f"ws://127.0.0.1:{self.port}/first", compression=None):
                return True
        except OSError:
            return False


@contextlib.contextmanager
def running(
    words: Sequence[str], folder: Path, redis: str, *, rate: float = 20, grace: float = 20
) -> Iterator[Program]:
    """A program that is gone, with its children, when this is left."""
    program = Program(words, folder, redis, rate, grace)
    try:
        yield program
    finally:
        with contextlib.suppress(ProcessLookupError):
            program.signal(signal.SIGKILL)
        program.process.wait()


def server(name: str, folder: Path) -> list[str]:
    """The command of an ASGI server with an application in ``folder``."""
    module, words = SERVERS[name]
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"{module} is not installed")
    (folder / "app.py").write_text(APP)
    return [sys.executable, "-m", module, *words("PORT")]


def program(folder: Path, *words: str) -> list[str]:
    """The command of the program above."""
    (folder / "program.py").write_text(PROGRAM)
    return [sys.executable, "program.py", *words]


async def paced(clients: list[ClientConnection]) -> None:
    """Check that they are closed one by one and told to come back."""
    times = await asyncio.gather(*map(close_time, clients))
    assert max(times) - min(times) > 0.4 * len(clients) / 20, "they were closed in a burst"


@pytest.mark.parametrize("name", SERVERS)
@async_test
async def test_sigterm_to_an_asgi_server_drains_it(name: str, tmp_path: Path) -> None:
    """The signal goes to the first process, as from an orchestrator. The server ends by itself."""
    with (
        RedisServer("valkey") as redis,
        NodeProcess(redis.url),
        running(server(name, tmp_path), tmp_path, redis.url) as it,
    ):
        clients = await it.connected(30)
        it.process.send_signal(signal.SIGTERM)
        await paced(clients)
        assert await in_thread(it.process.wait, 90) in (0, -signal.SIGTERM)
        assert "Traceback" not in it.said()
        with Redis.from_url(f"unix://{redis.path}") as keys:
            assert keys.hlen("cluster_pool:{room}:members") == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@async_test
async def test_a_signal_to_a_process_group_drains_each_worker_once(
    number: int, tmp_path: Path
) -> None:
    """Each worker is told twice, by the group's signal and by its parent, and drains once.

    The parent passes Ctrl-C on as SIGTERM.
    """
    with (
        RedisServer("valkey") as redis,
        NodeProcess(redis.url),
        running(server("uvicorn 2", tmp_path), tmp_path, redis.url) as it,
    ):
        clients = await it.connected(30)
        it.signal(number)
        await paced(clients)
        assert await in_thread(it.process.wait, 90) == 0
        assert "closing everyone who is left now" not in it.said()
        assert "Traceback" not in it.said()


@async_test
async def test_a_stop_without_a_signal_drains(tmp_path: Path) -> None:
    """Clients that a server has not closed at its own end are drained."""
    with (
        RedisServer("valkey") as redis,
        NodeProcess(redis.url),
        running(program(tmp_path), tmp_path, redis.url) as it,
    ):
        clients = await it.connected(30)
        await clients[0].send("end")
        await paced(clients)
        assert await in_thread(it.process.wait, 90) == 0
        assert "left" in it.said()


@async_test
async def test_the_first_signal_during_a_stop_is_no_hurry(tmp_path: Path) -> None:
    """The first one says what is done already; the next one, if it is another, that it is late."""
    with (
        RedisServer("valkey") as redis,
        NodeProcess(redis.url),
        running(program(tmp_path), tmp_path, redis.url, rate=0.1, grace=3600) as it,
    ):
        clients = await it.connected(10)
        await clients[0].send("end")
        await eventually(lambda: any(client.close_code for client in clients))
        it.signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        assert sum(client.close_code is None for client in clients) >= 8
        it.signal(signal.SIGINT)
        assert {await close_code(client) for client in clients} == {1012}
        await in_thread(it.process.wait, 90)


@pytest.mark.parametrize("handler", [True, False], ids=["handler", "default"])
@async_test
async def test_a_program_that_is_pid_1_ends_on_a_signal(handler: bool, tmp_path: Path) -> None:
    """The kernel drops unhandled signals of PID 1; the drain ends the process all the same."""
    if not may_unshare():
        pytest.skip("no process namespaces for this user")
    words = [*NEW_PIDS, *program(tmp_path, *(["handler"] if handler else []))]
    with (
        RedisServer("valkey") as redis,
        NodeProcess(redis.url),
        running(words, tmp_path, redis.url) as it,
    ):
        clients = await it.connected(20)
        (child,) = it.children()
        os.kill(child, signal.SIGTERM)
        await paced(clients)
        assert await in_thread(it.process.wait, 90) == (0 if handler else 128 + signal.SIGTERM)
        assert ("left" in it.said()) is handler
        with Redis.from_url(f"unix://{redis.path}") as keys:
            assert keys.hlen("cluster_pool:{room}:members") == 0
