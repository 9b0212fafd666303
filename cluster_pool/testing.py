"""Help for users' own tests: a cluster on fakeredis in one event loop, and a fake WebSocket.

It needs ``pip install cluster-pool[testing]``; fakeredis is imported only here, and only when a
cluster is made. It works under any runner: plain ``asyncio.run``, pytest-asyncio, anyio's pytest
plugin on asyncio.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core.config import Timing
from cluster_pool.core.request import Request
from cluster_pool.local.connection import Connection
from cluster_pool.transports.callables import SendAndClose

if TYPE_CHECKING:
    from fakeredis import FakeServer

FAST = Timing(timeout=2.0, lease=3.0, heartbeat=1.0, probe=0.5, linger=0.2, close=1.0)
"""Shorter times than the defaults, so that a test need not wait long for a lease to end."""


class FakeWebSocket(SendAndClose):
    """A WebSocket that keeps the messages sent to it. Give it to :class:`Connection`.

    Attributes:
        sent: the messages that arrived, in order.
        closed: (code, reason) once it was closed, else None.
    """

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []
        self.closed: tuple[int, str] | None = None
        self._changed = asyncio.Event()

    def send(self, message: str | bytes) -> None:
        """Called by the connection for each message."""
        self.sent.append(message)
        self._changed.set()

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Called by the connection when it closes."""
        if self.closed is None:
            self.closed = (code, reason)
        self._changed.set()

    async def wait_sent(self, count: int = 1, timeout: float = 5.0) -> list[str | bytes]:
        """Wait until at least ``count`` messages have arrived, and return all of them."""
        await self._wait(lambda: len(self.sent) >= count, timeout)
        return self.sent

    async def wait_closed(self, timeout: float = 5.0) -> tuple[int, str]:
        """Wait until it is closed, and return the code and the reason."""
        await self._wait(lambda: self.closed is not None, timeout)
        assert self.closed is not None
        return self.closed

    async def _wait(self, condition: Callable[[], bool], timeout: float) -> None:
        async with asyncio.timeout(timeout):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


class FakeCluster(list[ClusterPool]):
    """The pools of :func:`fake_cluster`, in order.

    Attributes:
        server: the fakeredis server they share.
    """

    server: "FakeServer"

    async def connect(
        self,
        node: int,
        namespace: str,
        id: str,
        *,
        request: Request | None = None,
        user: str | None = None,
        info: Any = None,
        **options: Any,
    ) -> tuple[Connection, FakeWebSocket]:
        """Make a member on one of the nodes; returns its connection and its fake WebSocket.

        Args:
            request: the value of ``connection.request``.
            user, info: the values of ``connection.user`` and ``connection.info``.
            options: as for :meth:`ClusterPool.new_connection`.
        """
        websocket = FakeWebSocket()
        connection = Connection(id, namespace, websocket, request=request, user=user, info=info)
        await self[node].new_connection(connection, **options)
        return connection, websocket

    async def publish(self, channel: str, payload: str | bytes) -> int:
        """PUBLISH as redis-cli would; returns how many subscribers heard it."""
        from fakeredis import FakeAsyncRedis

        async with FakeAsyncRedis(server=self.server) as client:
            return int(await client.publish(channel, payload))


@contextlib.asynccontextmanager
async def fake_cluster(
    nodes: int = 2, *, timing: Timing = FAST, **options: Any
) -> AsyncIterator[FakeCluster]:
    """Several started :class:`ClusterPool` on one fakeredis server, stopped at the end.

    Args:
        nodes: the number of nodes; their ids are ``node-1``, ``node-2`` and so on.
        timing, options: as for :class:`ClusterPool`.
    """
    from fakeredis import FakeAsyncRedis, FakeServer

    cluster = FakeCluster()
    cluster.server = FakeServer()
    async with contextlib.AsyncExitStack() as stack:
        for number in range(1, nodes + 1):
            client = FakeAsyncRedis(server=cluster.server)
            stack.push_async_callback(client.aclose)
            pool = ClusterPool(client, node_id=f"node-{number}", timing=timing, **options)
            cluster.append(await stack.enter_async_context(pool))
        yield cluster


def run_with_cluster(test: Any, nodes: int = 2, **options: Any) -> None:
    """Run ``async def test(cluster)`` on a loop of its own with a fake cluster around it."""

    async def main() -> None:
        async with fake_cluster(nodes, **options) as cluster:
            await test(cluster)

    asyncio.run(main())
