"""A cluster as a person with redis-cli sees it: the demo checks itself by this.

Uses an ordinary client and plain commands, and none of the code of nodes and publishers.
"""

import contextlib
from collections.abc import AsyncIterator
from typing import Final, Self

from redis.asyncio import ConnectionPool, Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster

from cluster_pool.backplane.address import Address
from cluster_pool.backplane.scripts import PUBLISH, SHARDED_PUBLISH
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

    def __init__(self, redis: Redis | RedisCluster, prefix: str) -> None:
        self._redis = redis
        self._keys = Keys(prefix)
        self.publish_command = SHARDED_PUBLISH if isinstance(redis, RedisCluster) else PUBLISH
        """The command that publishes to a namespace here."""

    @classmethod
    @contextlib.asynccontextmanager
    async def at(cls, url: str, prefix: str) -> AsyncIterator[Self]:
        """Connect to a URL, and disconnect at the end; with Sentinels to the present primary."""
        address = Address(url, TIMEOUT)
        if address.kind == "cluster":
            async with _cluster_client(address) as cluster:
                yield cls(cluster, prefix)
            return
        login = (await address.primary()).login
        async with Redis.from_pool(ConnectionPool(login.kind, **login.settings)) as redis:
            yield cls(redis, prefix)

    def channel(self, namespace: str) -> str:
        """The channel on which a namespace is published to."""
        return self._keys.channel(namespace)

    async def publish(self, namespace: str, message: str) -> None:
        """Publish a message to every member of a namespace."""
        words = (self.publish_command, self.channel(namespace), message)
        await self._redis.execute_command(*words)

    async def registered(self, namespace: str) -> int:
        """The number of registered members, with those of dead nodes that are not reaped yet."""
        return int(await self._redis.hlen(self._keys.members(namespace)))

    async def permanent_keys(self) -> list[str]:
        """The cluster's keys that do not expire by themselves."""
        found = [key async for key in self._redis.scan_iter(f"{self._keys.prefix}:*")]
        return [key.decode() for key in found if await self._redis.ttl(key) == NO_EXPIRY]


def _cluster_client(address: Address) -> RedisCluster:
    """A client of redis-py for all primaries, with the login that the URL has."""
    logins = [seed.login for seed in address.seeds]
    settings = {
        name: value
        for name, value in logins[0].settings.items()
        if name in ("username", "password") or name.startswith("ssl_")
    }
    return RedisCluster(
        startup_nodes=[ClusterNode(*login.where) for login in logins],
        ssl=logins[0].tls,
        address_remap=lambda where: address.announced(where).login.where,
        **settings,
    )
