"""What tests of draining share: WebSockets that note when they are closed, and rates of closes."""

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any

from cluster_pool import ClusterPool, Connection, ConnectionsPool
from cluster_pool.testing import FakeWebSocket


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
    """Its client reads nothing: the first message stays where it is, and so does all behind it."""

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
    """When those that are closed were closed, in order."""
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
    """What a drain that was begun as a task reports."""
    return await asyncio.wait_for(drain, 30)
