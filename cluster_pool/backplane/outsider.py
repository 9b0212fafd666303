"""A cluster as a person with redis-cli sees it: the demo checks itself by this.

Uses an ordinary client and plain commands, and none of the code of nodes and publishers.
"""

from typing import Final, Self

from redis.asyncio import Redis

from cluster_pool.core.keys import Keys

NO_EXPIRY: Final = -1
"""The reply of TTL for a key that does not expire; for one that is gone meanwhile it is -2."""


class Outsider:
    """An ordinary client of the Redis of a cluster; an async context manager.

    Args:
        url: where Redis is.
        prefix: of the cluster's keys and channels.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self._redis = Redis.from_url(url)
        self._keys = Keys(prefix)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._redis.aclose()

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
