"""Registering again at one of several shards, while the rest of the node goes on."""

from collections.abc import Iterator

import pytest

from tests.redis_clusters import away_from_home, cluster_pools, namespaces_of
from tests.support import async_test, eventually
from tools.harness.redis_cluster import RedisCluster

pytestmark = pytest.mark.slow


@pytest.fixture
def redis() -> Iterator[RedisCluster]:
    """One for each test, which may lose its data."""
    with RedisCluster(replicas=0, node_timeout=20) as cluster:
        yield cluster


@async_test
async def test_a_primary_that_comes_back_empty_gets_all_claims_again(redis: RedisCluster) -> None:
    """Under the same incarnation, with the claims as they were; the other shards are not asked."""
    lost, name = away_from_home(redis)
    others = [one for port, (one,) in namespaces_of(redis).items() if port != lost.port]
    async with cluster_pools(redis) as (one, two):
        members = [await one.join(name, f"member-{at}") for at in range(300)]
        for other in others:
            await one.join(other, "alice")
        before = one.statistics()
        lost.call("FLUSHALL")
        lost.call("CLIENT", "KILL", "TYPE", "normal")
        lost.call("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(lambda: lost.call("HLEN", f"cluster_pool:{{{name}}}:members") == 300, 20)
        await eventually(lambda: not one._parts.ownership.restoration.due)
        after = one.statistics()
        assert after["incarnation"] == before["incarnation"]
        assert after["rejoins"] == before["rejoins"]
        assert await two.count(name) == 300
        assert await two.send(name, "member-7", "x", confirm=True)
        assert "x" in await members[7].wait_sent()


@async_test
async def test_a_rejoin_registers_claims_at_every_shard(redis: RedisCluster) -> None:
    """The lease is at home, but claims at every shard depend on it."""
    home = redis.primary_of("{~}")
    async with cluster_pools(redis) as (one, two):
        names = [name for names in namespaces_of(redis, 3).values() for name in names]
        for name in names:
            await one.join(name, "alice")
        before = one.statistics()["incarnation"]
        home.call("DEL", "cluster_pool:{~}:leases")
        await eventually(lambda: one.statistics()["incarnation"] != before, 20)
        await eventually(lambda: one.ready and two.ready, 20)
        for name in names:
            assert await two.send(name, "alice", "x", confirm=True)
            assert await two.count(name) == 1
