"""Clusters of pools in one event loop, on any backend."""

import asyncio
import contextlib
import dataclasses
import re
from collections.abc import AsyncIterator
from typing import Any

from fakeredis import FakeAsyncRedis, FakeRedis, FakeServer

from cluster_pool import ClusterPool, Connection, Publisher
from cluster_pool.testing import FAST, FakeWebSocket
from tests.servers import Cluster, RedisServer, Sentinel

Heard = asyncio.Queue[tuple[str, bytes]]
"""Channels and payloads."""
EXPIRING = re.compile(
    r":(numbers|history|(former_|parked_)?positions)$|:\{~\}:(revo(ked|cations)|resumes)$"
)
"""Keys that a clean stop may leave, because they have a ttl."""
PATIENT = dataclasses.replace(FAST, timeout=10.0)
"""For nodes of which no test asks how soon a call fails."""
PATIENCE = 20.0
"""Seconds for a start or a claim, of which no test asks how long they take."""


def claim_of(websocket: FakeWebSocket) -> Any:
    """The claim of a member that :meth:`Pool.join` has made; None once it has left."""
    memberships: Any = websocket.connection._memberships  # type: ignore[attr-defined]
    return memberships[0].claim if memberships else None


def connection_of(websocket: FakeWebSocket) -> Connection:
    """The connection that :meth:`Pool.join` has made."""
    connection: Connection = websocket.connection  # type: ignore[attr-defined]
    return connection


class Backend:
    """A fakeredis server, or a real one of any topology, and a prefix of its own."""

    def __init__(
        self, server: RedisServer | Cluster | Sentinel | None, prefix: str = "cluster_pool"
    ) -> None:
        self.server: Any = server
        self.prefix = prefix
        self.fake = FakeServer() if server is None else None

    @property
    def real(self) -> bool:
        return self.server is not None

    @property
    def clustered(self) -> bool:
        """Whether it is a Redis Cluster, where channels are sharded."""
        return isinstance(self.server, Cluster)

    def redis(self) -> Any:
        """An argument for a pool: a client on the fake server, or a URL."""
        if self.server is None:
            return FakeAsyncRedis(server=self.fake)
        return self.server.url

    def client(self) -> Any:
        """A user's own client."""
        return FakeAsyncRedis(server=self.fake) if self.server is None else self.server.client()

    def sync_client(self) -> Any:
        """A client that blocks the loop, so that all its reads are of one moment."""
        if self.server is None:
            return FakeRedis(server=self.fake)
        return self.server.sync_client()

    def keys(self) -> dict[str, int]:
        """The keys under the prefix, with their ttl in ms (-1 for none)."""
        found: dict[str, int] = {}
        for one in [FakeRedis(server=self.fake)] if self.server is None else self.server.each():
            with one as client:
                for key in client.keys(f"{self.prefix}:*"):
                    found[key.decode()] = client.pttl(key)
        return found

    def keys_of(self, kind: str) -> list[str]:
        """The keys whose last part is ``kind``."""
        return sorted(key for key in self.keys() if key.endswith(f":{kind}"))

    def leaked(self) -> list[str]:
        """Keys that should not exist when everything has stopped."""
        return sorted(
            key for key, ttl in self.keys().items() if not (EXPIRING.search(key) and ttl > 0)
        )

    @contextlib.asynccontextmanager
    async def pools(self, nodes: int = 2, **options: Any) -> AsyncIterator[list["Pool"]]:
        """Started pools ``node-1``, ``node-2`` and so on."""
        options = {"timing": PATIENT, "prefix": self.prefix, **options}
        async with contextlib.AsyncExitStack() as stack:
            pools = []
            for number in range(1, nodes + 1):
                pool = Pool(self.redis(), node_id=f"node-{number}", **options)
                stack.push_async_exit(pool)
                await pool.start(wait=PATIENCE)
                pools.append(pool)
            yield pools

    def publisher(self, **options: Any) -> Publisher:
        """A publisher, not started."""
        options = {"timeout": PATIENT.timeout, "prefix": self.prefix, **options}
        return Publisher(self.redis(), **options)

    def routed_channel(self, namespace: str, pool: "Pool") -> str:
        """The channel for what is sent from elsewhere to a node's members of a namespace."""
        tag, start = namespace if self.clustered else "~", pool._parts.backplane.identity.start
        return f"{self.prefix}:{{{tag}}}:start:{start}"

    async def publish(self, channel: str, payload: str | bytes) -> int:
        """PUBLISH as redis-cli would; SPUBLISH on a cluster."""
        async with self.client() as client:
            if self.clustered:
                return int(await client.execute_command("SPUBLISH", channel, payload))
            return int(await client.publish(channel, payload))

    @contextlib.asynccontextmanager
    async def recording(self, *channels: str) -> AsyncIterator[Heard]:
        """As :meth:`listening`, but no publisher counts the one who listens, save on a cluster."""
        async with self._listening(
            channels, "ssubscribe" if self.clustered else "psubscribe"
        ) as heard:
            yield heard

    @contextlib.asynccontextmanager
    async def listening(self, *channels: str) -> AsyncIterator[Heard]:
        """Payloads on these channels from now on, in order as far as one server has them."""
        async with self._listening(
            channels, "ssubscribe" if self.clustered else "subscribe"
        ) as heard:
            yield heard

    @contextlib.asynccontextmanager
    async def _listening(self, channels: tuple[str, ...], how: str) -> AsyncIterator[Heard]:
        heard: Heard = asyncio.Queue()
        places: dict[Any, list[str]] = {}
        for channel in channels:
            place = self.server.primary_of(channel).server if self.clustered else self.server
            places.setdefault(place, []).append(channel)

        async def read(subscriber: Any) -> None:
            async for message in subscriber.listen():
                heard.put_nowait((message["channel"].decode(), message["data"]))

        async with contextlib.AsyncExitStack() as stack:
            readers = []
            for place, names in places.items():
                client = FakeAsyncRedis(server=self.fake) if place is None else place.client()
                await stack.enter_async_context(client)
                subscriber = await stack.enter_async_context(client.pubsub())
                for name in names:  # one slot each
                    await getattr(subscriber, how)(name)
                    assert await subscriber.get_message(timeout=5)
                readers.append(asyncio.create_task(read(subscriber)))
            try:
                yield heard
            finally:
                for reader in readers:
                    reader.cancel()
                await asyncio.gather(*readers, return_exceptions=True)


class Pool(ClusterPool):
    """A pool with a shortcut for tests."""

    async def host(
        self, namespace: str, id: str, *, user: str | None = None, **options: Any
    ) -> FakeWebSocket:
        """Make a member with a fake WebSocket, whose ``connection`` is the Connection.

        Without a ``timeout`` it waits for long: many join at once, on a busy machine.
        """
        websocket = FakeWebSocket()
        connection = Connection(id, namespace, websocket, user=user)
        websocket.connection = connection  # type: ignore[attr-defined]
        await self.new_connection(connection, **{"timeout": PATIENCE, **options})
        return websocket


async def vanish(pool: Pool) -> None:
    """Stop a node as SIGKILL does from Redis's view: silence, and closed sockets."""
    await pool._parts.lease_keeper.stop()
    await pool._parts.reaper.stop()
    await pool._parts.reconciler.stop()
    await pool._parts.backplane.topology.stop()


async def abandon(pool: Pool) -> None:
    """End the tasks of a node that has vanished."""
    parts = pool._parts
    for end in (parts.ownership.stop, parts.dispatcher.stop, parts.backplane.stop):
        await end()
