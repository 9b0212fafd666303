"""A cluster as a person with redis-cli sees it: the demo checks itself by this.

Uses an ordinary client and plain commands, and none of the code of nodes and publishers.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Final, Self

from redis.asyncio import ConnectionPool, Redis

from cluster_pool.backplane.address import Address
from cluster_pool.core.keys import Keys

NO_EXPIRY: Final = -1
"""The reply of TTL for a key that does not expire; for one that is gone meanwhile it is -2."""

TIMEOUT: Final = 2.0
"""Seconds to find Redis."""


class Outsider:
    """An ordinary client of the Redis of a cluster.

    Args:
        prefix: of the cluster's keys and channels.
    """

    def __init__(self, redis: Redis, prefix: str) -> None:
        self._redis = redis
        self._keys = Keys(prefix)

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, url: str, prefix: str) -> AsyncIterator[Self]:
        """One for a URL, disconnected at the end; with Sentinels it stays at the primary of now."""
        login = (await Address(url, TIMEOUT).primary()).login
        async with Redis.from_pool(ConnectionPool(login.kind, **login.settings)) as redis:
            yield cls(redis, prefix)

    def channel(self, namespace: str) -> str:
        """The channel on which a namespace is published to."""
        return self._keys.channel(namespace)

    async def publish(self, namespace: str, message: str) -> None:
        """PUBLISH a message to every member of a namespace."""
        await self._redis.publish(self.channel(namespace), message)

    async def registered(self, namespace: str) -> int:
        """The number of registered members, with those of dead nodes that are not reaped yet."""
        return int(await self._redis.hlen(self._keys.members(namespace)))

    async def permanent_keys(self) -> list[str]:
        """The cluster's keys that do not expire by themselves."""
        found = [key async for key in self._redis.scan_iter(f"{self._keys.prefix}:*")]
        return [key.decode() for key in found if await self._redis.ttl(key) == NO_EXPIRY]
