"""Pools on a Redis Cluster that a test may harm."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from cluster_pool.backplane.slots import slot_of
from cluster_pool.testing import FAST
from tests.clusters import PATIENCE, Pool
from tools.harness.members import Member
from tools.harness.network import Network
from tools.harness.redis_cluster import RedisCluster


@contextlib.asynccontextmanager
async def cluster_pools(
    redis: RedisCluster | Network, nodes: int = 2, **options: Any
) -> AsyncIterator[list[Pool]]:
    """Started pools ``node-1``, ``node-2`` and so on."""
    options = {"timing": FAST, **options}
    async with contextlib.AsyncExitStack() as stack:
        pools = []
        for number in range(1, nodes + 1):
            pool = Pool(redis.url, node_id=f"node-{number}", **options)
            stack.push_async_exit(pool)
            await pool.start(wait=PATIENCE)
            pools.append(pool)
        yield pools


def namespaces_of(redis: RedisCluster, count: int = 1) -> dict[int, list[str]]:
    """So many namespaces in slots of each primary, by the port of that, and none beside ``{~}``."""
    found: dict[int, list[str]] = {one.port: [] for one in redis.primaries}
    number = 0
    while min(map(len, found.values())) < count:
        name, number = f"ns{number}", number + 1
        names = found[redis.owner(slot_of(name)).port]
        if len(names) < count:
            names.append(name)
    return found


def away_from_home(redis: RedisCluster) -> tuple[Member, str]:
    """A primary without the slot of ``{~}``, and a namespace there."""
    home = redis.primary_of("{~}").port
    port, (name,) = next(one for one in namespaces_of(redis).items() if one[0] != home)
    return next(one for one in redis.primaries if one.port == port), name


def leaked(redis: RedisCluster) -> list[str]:
    """Keys without a ttl."""
    return sorted(
        key
        for primary in redis.primaries
        for key in primary.call("KEYS", "*")
        if primary.call("TTL", key) == -1
    )
