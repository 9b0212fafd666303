"""Publishes messages of clients of ``serve`` to the inbound channel of their namespace.

Each message is published at most once, and those of one client in their order. While Redis cannot
be reached, one message at a time is tried, and the others are counted and dropped at once. If they
waited, their clients would not be read from, would look dead and be closed; but an outage of Redis
must close no client.
"""

import asyncio
import logging

from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core.ids import shown
from cluster_pool.exceptions import ClusterPoolError
from cluster_pool.local.closing import is_silenced
from cluster_pool.local.connection import Connection
from cluster_pool.server.attempts import Attempts

log = logging.getLogger("cluster_pool.server")

REDIS = "redis"
"""All servers of a Redis Cluster count as one."""
COMPLAIN_EVERY = 10.0
"""Seconds between two lines in the log about lost messages."""


class Inbound:
    """Publishes the messages of all connections of a node."""

    def __init__(self, pool: ClusterPool) -> None:
        self._pool = pool
        self._attempts = Attempts()
        self._complain_after = 0.0
        self._lost = 0

    async def publish_all(self, connection: Connection) -> None:
        """Publish the messages of one client, until its connection is closed."""
        async for message in connection:
            await self._publish(connection, message)
            del message  # else it is kept until the next one comes

    async def _publish(self, connection: Connection, message: str | bytes) -> None:
        await self._pool.inbound.room(message)
        if is_silenced(connection):
            return  # taken over or closed by the pool while it waited
        if not self._attempts.allowed(REDIS):
            self._count_lost("Redis cannot be reached")
            return
        try:
            with self._attempts.begin(REDIS):
                await self._pool.publish_inbound(connection, message)
        except ClusterPoolError as error:
            self._count_lost(str(error))

    def _count_lost(self, why: str) -> None:
        self._pool.counters.inbound_lost += 1
        self._lost += 1
        now = asyncio.get_running_loop().time()
        if now >= self._complain_after:
            log.warning("%d inbound messages were lost: %s", self._lost, shown(why, 200))
            self._lost, self._complain_after = 0, now + COMPLAIN_EVERY
