"""Helpers for tests of drains: WebSockets that note their close times, and rates of closes."""

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any, Self

from websockets.asyncio.client import ClientConnection

from cluster_pool import ClusterPool, Connection, ConnectionsPool
from cluster_pool.testing import FakeWebSocket
from tests.support import eventually
from tools.harness.nodes import NodeProcess


class TimedWebSocket(FakeWebSocket):
    """Notes the moment of its close.

    Attributes:
        closed_at: on the clock of the loop; 0 while it is open.
        connection: whose it is.
    """

    connection: Connection

    def __init__(self) -> None:
        super().__init__()
        self.closed_at = 0.0

    def close(self, code: int = 1000, reason: str = "") -> None:
        """See :class:`FakeWebSocket`."""
        self.closed_at = self.closed_at or asyncio.get_running_loop().time()
        super().close(code, reason)


class MuteWebSocket(TimedWebSocket):
    """Its client never answers a close."""

    async def close(self, code: int = 1000, reason: str = "") -> None:  # type: ignore[override]
        """Never returns."""
        super().close(code, reason)
        await asyncio.Event().wait()


class UnreadWebSocket(TimedWebSocket):
    """Its client reads nothing: the first message stays, and so do all later ones behind it."""

    async def send(self, message: str | bytes) -> None:  # type: ignore[override]
        """Never returns."""
        await asyncio.Event().wait()


async def join(
    pool: ConnectionsPool | ClusterPool,
    count: int,
    namespace: str = "n",
    kind: type[TimedWebSocket] = TimedWebSocket,
    name: str = "m",
) -> list[TimedWebSocket]:
    """So many new members."""
    sockets = []
    for at in range(count):
        socket = kind()
        socket.connection = Connection(f"{name}{at}", namespace, socket)
        await pool.new_connection(socket.connection)
        sockets.append(socket)
    return sockets


def times_of(sockets: Iterable[TimedWebSocket]) -> list[float]:
    """The close times of closed sockets, in order."""
    return sorted(socket.closed_at for socket in sockets if socket.closed_at)


def peak_of(times: Iterable[float], span: float = 1.0) -> int:
    """The most events within any ``span`` seconds."""
    ordered, first, most = sorted(times), 0, 0
    for at, time in enumerate(ordered):
        while ordered[first] <= time - span:
            first += 1
        most = max(most, at - first + 1)
    return most


def gap_of(times: Iterable[float]) -> float:
    """The longest time between two events that follow each other."""
    ordered = sorted(times)
    return max((b - a for a, b in itertools.pairwise(ordered)), default=0.0)


def allowed(rate: float, drainers: int = 1) -> float:
    """The most closes in any second under a budget."""
    return 1.10 * rate + drainers


async def ended(drain: "asyncio.Task[Any]") -> Any:
    """The report of a drain that runs as a task."""
    return await asyncio.wait_for(drain, 30)


class Clients:
    """Real clients of ``serve`` processes, and the times of their closes. Entered, left at the end.

    Attributes:
        closed: the moment and the code of each close, in order.
        lag: the longest that this process was late by itself; what came meanwhile looks bunched.
    """

    def __init__(self) -> None:
        self.closed: list[tuple[float, int | None]] = []
        self.lag = 0.0
        self._open: list[ClientConnection] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks.append(asyncio.create_task(self._watch_lag()))
        return self

    async def __aexit__(self, *error: object) -> None:
        for client in self._open:
            client.transport.abort()
        self._tasks[0].cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def join(self, node: NodeProcess, count: int, namespace: str = "room") -> None:
        """So many more clients of a node."""
        for at in range(0, count, 20):
            some = range(at, min(at + 20, count))
            clients = await asyncio.gather(*[self._connect(node, namespace) for _ in some])
            self._open += clients
            self._tasks += [asyncio.create_task(self._follow(client)) for client in clients]

    async def _connect(self, node: NodeProcess, namespace: str) -> ClientConnection:
        client: ClientConnection = await node.connect(namespace, ping_interval=None)
        return client

    async def _follow(self, client: ClientConnection) -> None:
        await client.wait_closed()
        self.closed.append((asyncio.get_running_loop().time(), client.close_code))

    async def _watch_lag(self) -> None:
        time = asyncio.get_running_loop().time
        while True:
            before = time()
            await asyncio.sleep(0.01)
            self.lag = max(self.lag, time() - before - 0.01)

    @property
    def times(self) -> list[float]:
        """The times of their closes."""
        return [time for time, _ in self.closed]

    @property
    def codes(self) -> set[int | None]:
        """The codes of their closes."""
        return {code for _, code in self.closed}

    async def say(self, message: str) -> None:
        """The last one that is open says something."""
        await next(one for one in reversed(self._open) if one.close_code is None).send(message)

    async def all_closed(self, seconds: float = 30) -> None:
        """Wait until no client is open."""
        await eventually(lambda: len(self.closed) == len(self._open), seconds)

    def allowed(self, rate: float, drainers: int = 1, span: float = 1.0) -> float:
        """The most closes within ``span`` seconds under a budget, as seen from this process."""
        return allowed(rate * (span + self.lag), drainers) + 1
