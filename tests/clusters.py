"""Clusters of pools in one event loop, on any backend."""

import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

from fakeredis import FakeAsyncRedis, FakeRedis, FakeServer
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from cluster_pool import ClusterPool, Connection, Publisher
from cluster_pool.testing import FAST, FakeWebSocket
from tests.servers import RedisServer

EXPIRING = re.compile(r":numbers$")
"""Keys that a clean stop may leave, because they have a ttl."""


def claim_of(websocket: FakeWebSocket) -> Any:
    """The claim of a member that :meth:`Pool.join` has made; None once it has left."""
    memberships: Any = websocket.connection._memberships  # type: ignore[attr-defined]
    return memberships[0].claim if memberships else None


class Backend:
    """A fakeredis server, or a real one, and a prefix of its own."""

    def __init__(self, server: RedisServer | None, prefix: str = "cluster_pool") -> None:
        self.server = server
        self.prefix = prefix
        self.fake = FakeServer() if server is None else None

    @property
    def real(self) -> bool:
        return self.server is not None

    def redis(self) -> Any:
        """What a pool takes: a client on the fake server, or a URL."""
        if self.server is None:
            return FakeAsyncRedis(server=self.fake)
        return self.server.url

    def client(self) -> AsyncRedis:
        """A user's own client."""
        if self.server is None:
            return FakeAsyncRedis(server=self.fake)
        return AsyncRedis.from_url(f"unix://{self.server.path}")

    def sync_client(self) -> Redis:
        """A client that holds up the loop, so that what it reads is all of one moment."""
        if self.server is None:
            return FakeRedis(server=self.fake)
        return Redis.from_url(f"unix://{self.server.path}")

    def keys(self) -> dict[str, int]:
        """The keys under the prefix, with their ttl in ms (-1 for none)."""
        with self.sync_client() as client:
            found = client.keys(f"{self.prefix}:*")
            return {key.decode(): client.pttl(key) for key in found}

    def keys_of(self, kind: str) -> list[str]:
        """The keys whose last part is ``kind``."""
        return sorted(key for key in self.keys() if key.endswith(f":{kind}"))

    def leaked(self) -> list[str]:
        """Keys that should not be there when everything has stopped."""
        return sorted(
            key for key, ttl in self.keys().items() if not (EXPIRING.search(key) and ttl > 0)
        )

    @contextlib.asynccontextmanager
    async def pools(self, nodes: int = 2, **options: Any) -> AsyncIterator[list["Pool"]]:
        """Started pools ``node-1``, ``node-2`` and so on."""
        options = {"timing": FAST, "prefix": self.prefix, **options}
        async with contextlib.AsyncExitStack() as stack:
            pools = []
            for number in range(1, nodes + 1):
                pool = Pool(self.redis(), node_id=f"node-{number}", **options)
                pools.append(await stack.enter_async_context(pool))
            yield pools

    def publisher(self, **options: Any) -> Publisher:
        """A publisher, not started."""
        return Publisher(self.redis(), prefix=self.prefix, **options)

    async def publish(self, channel: str, payload: str | bytes) -> int:
        """PUBLISH as redis-cli would."""
        async with self.client() as client:
            return int(await client.publish(channel, payload))


class Pool(ClusterPool):
    """A pool with a shortcut for tests."""

    async def join(self, namespace: str, id: str, **options: Any) -> FakeWebSocket:
        """Make a member with a fake WebSocket, whose ``connection`` is the Connection."""
        websocket = FakeWebSocket()
        connection = Connection(id, namespace, websocket)
        websocket.connection = connection  # type: ignore[attr-defined]
        await self.new_connection(connection, **options)
        return websocket


async def vanish(pool: Pool) -> None:
    """What SIGKILL does to a node, as far as Redis can see: silence, and closed sockets."""
    await pool._parts.lease_keeper.stop()
    await pool._parts.reaper.stop()
    await pool._parts.reconciler.stop()
    await pool._parts.backplane.shard.stop()


async def abandon(pool: Pool) -> None:
    """End the tasks of a node that has vanished."""
    parts = pool._parts
    for end in (parts.ownership.stop, parts.dispatcher.stop, parts.backplane.stop):
        await end()
