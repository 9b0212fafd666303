"""The demo's nodes and clients: real processes and real WebSockets."""

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

import cluster_pool
from cluster_pool.embedded import bound_to_parent
from cluster_pool.exceptions import ClusterPoolError

NAMESPACE = "demo"


class DemoFailedError(ClusterPoolError):
    """The demo could not start a node."""


@dataclass(eq=False)
class NodeProcess:
    """``cluster-pool serve`` in a process of its own, which cannot outlive this one."""

    id: str
    process: asyncio.subprocess.Process
    port: int

    @classmethod
    async def start(cls, id: str, redis: str, prefix: str) -> "NodeProcess":
        """Start it, and wait until it listens."""
        process = await asyncio.create_subprocess_exec(
            *bound_to_parent(
                [
                    *(sys.executable, "-P", "-m", "cluster_pool", "serve", "--json"),
                    *("--redis", redis, "--prefix", prefix, "--port", "0", "--node-id", id),
                    *("--app", "cluster_pool.cli.demo_app:handler", "--log-level", "error"),
                    *("--announce", "1"),  # no load balancer needs longer here
                ]
            ),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env=_this_package_first(),
        )
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            await process.wait()
            raise DemoFailedError(f"{id} did not start")
        return cls(id, process, json.loads(line)["port"])

    @property
    def running(self) -> bool:
        """Whether the process has not ended."""
        return self.process.returncode is None

    async def terminate(self) -> int:
        """Send SIGTERM, and wait for the exit status."""
        self.process.terminate()
        return await self.process.wait()

    async def kill(self) -> None:
        """Send SIGKILL, and wait for the end: it cannot tell its clients or Redis."""
        if self.running:
            self.process.kill()
        await self.process.wait()


def _this_package_first() -> dict[str, str]:
    """Return an environment in which a child imports this package, whatever its folder is."""
    root = str(Path(cluster_pool.__file__).parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, inherited)))}


@dataclass(eq=False)
class Client:
    """A WebSocket client that remembers what it heard, and when."""

    id: str
    node: NodeProcess
    heard: dict[str, list[float]] = field(default_factory=dict)
    results: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    close_code: int | None = None
    _news: asyncio.Event = field(default_factory=asyncio.Event)
    _websocket: ClientConnection | None = None
    _reader: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect to the node. When this returns, the client is a member."""
        self.close_code = None
        url = f"ws://127.0.0.1:{self.node.port}/ws/{NAMESPACE}?id={self.id}"
        self._websocket = await connect(url, compression=None, ping_interval=None, open_timeout=10)
        self._reader = asyncio.create_task(self._read(self._websocket))

    async def ask(self, **wish: str) -> Any:
        """Have the client's node send something, and return the result."""
        assert self._websocket is not None
        await self._websocket.send(json.dumps(wish))
        return await asyncio.wait_for(self.results.get(), 10)

    async def ended(self) -> int:
        """Wait until the connection is closed, and return the code."""
        assert self._reader is not None
        await asyncio.wait_for(asyncio.shield(self._reader), 20)
        return self.close_code or 1006

    async def shut(self) -> None:
        """Cut the connection."""
        if self._websocket is not None:
            self._websocket.transport.abort()
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

    def times(self, text: str) -> list[float]:
        """Return each time at which ``text`` was heard."""
        return self.heard.get(text, [])

    async def hears(self, text: str) -> None:
        """Wait until ``text`` has been heard."""
        while text not in self.heard:
            self._news.clear()
            await self._news.wait()

    async def _read(self, websocket: ClientConnection) -> None:
        try:
            async for message in websocket:
                text = message if isinstance(message, str) else message.decode()
                if text.startswith('{"result"'):
                    self.results.put_nowait(json.loads(text)["result"])
                else:
                    self.heard.setdefault(text, []).append(time.perf_counter())
                    self._news.set()
        except ConnectionClosed:
            pass
        finally:
            self.close_code = websocket.close_code or 1006


@contextlib.asynccontextmanager
async def cast(redis: str, prefix: str, nodes: int, clients: int) -> AsyncIterator["Cast"]:
    """Start the nodes and connect the clients, spread evenly; stop all of them at the end."""
    made = Cast()
    try:
        names = [f"node-{number}" for number in range(1, nodes + 1)]
        made.nodes = list(
            await asyncio.gather(*[NodeProcess.start(name, redis, prefix) for name in names])
        )
        made.clients = [
            Client(f"client-{number}", made.nodes[number % nodes]) for number in range(clients)
        ]
        await open_all(made.clients)
        yield made
    finally:
        await asyncio.gather(*[client.shut() for client in made.clients])
        await asyncio.gather(*[node.kill() for node in made.nodes])


class Cast:
    """The nodes and the clients."""

    def __init__(self) -> None:
        self.nodes: list[NodeProcess] = []
        self.clients: list[Client] = []

    def of(self, node: NodeProcess) -> list[Client]:
        """The clients of one node."""
        return [client for client in self.clients if client.node is node]


async def open_all(clients: list[Client], at_once: int = 50) -> None:
    """Connect these clients, some at a time."""
    turns = asyncio.Semaphore(at_once)

    async def open_one(client: Client) -> None:
        async with turns:
            await client.open()

    await asyncio.gather(*[open_one(client) for client in clients])
