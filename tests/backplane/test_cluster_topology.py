"""The shards of a cluster: each has its namespaces, and one that is down does not delay others."""

from collections.abc import Iterator

import pytest

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.slots import HOME_SLOT, slot_of
from cluster_pool.core.keys import Keys
from tests.redis_clusters import away_from_home, cluster_pools, namespaces_of
from tests.support import async_test, eventually
from tools.harness.redis_cluster import RedisCluster

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisCluster]:
    """One for all tests here, each of which leaves it whole."""
    with RedisCluster(node_timeout=20) as cluster:
        yield cluster


@async_test
async def test_a_namespace_is_at_the_shard_of_its_primary(redis: RedisCluster) -> None:
    """With all its channels; home is a shard of its own, and so is each primary."""
    keys = Keys()
    async with cluster_pools(redis, 1) as (one,):
        topology = one._parts.backplane.topology
        assert topology.spans
        names = namespaces_of(redis, 2)
        shards = {port: topology.of(pair[0]) for port, pair in names.items()}
        assert len({*shards.values(), topology.home}) == 4
        for port, pair in names.items():
            for name in pair:
                for key in (name, keys.members(name), keys.routed_prefix(name) + "start"):
                    assert topology.of(key) is shards[port]
        assert topology.of(keys.leases) is topology.of("~") is topology.home
        every = [name for pair in names.values() for name in pair]
        assert await topology.by_shard(every) == {
            shards[port]: pair for port, pair in names.items()
        }
        assert await topology.in_calls([*every, every[0]]) == [every[0], *every]
        assert sorted(topology.together([*every, every[0]])) == sorted(
            [[name] if name != every[0] else [name, name] for name in every]
        )
        assert slot_of("~") == HOME_SLOT


@async_test
async def test_a_frozen_primary_delays_only_its_own_namespaces(redis: RedisCluster) -> None:
    """Calls about those fail in time; all others work, and the node keeps its lease."""
    frozen, away = away_from_home(redis)
    here = next(name for port, (name,) in namespaces_of(redis).items() if port != frozen.port)
    async with cluster_pools(redis) as (one, two):
        members = {name: await one.host(name, "alice") for name in (away, here)}
        incarnation = one.statistics()["incarnation"]
        frozen.server.freeze()
        try:
            with pytest.raises(BackplaneUnavailableError):
                await two.send(away, "alice", "x", timeout=0.5)
            for number in range(5):
                assert await two.send(here, "alice", str(number), confirm=True)
            assert await two.broadcast_message(here, "5") == 1
            await one.host(here, "bob", timeout=1)
            with pytest.raises(BackplaneUnavailableError):
                await one.host(away, "bob", timeout=0.5)
            shard = two._parts.backplane.topology.of(away)
            await eventually(lambda: not shard.up)
            with pytest.raises(BackplaneUnavailableError):
                await two.broadcast_message(away, "x", timeout=0.5)
            assert await two.count(here) == 2
        finally:
            frozen.server.thaw()
        await eventually(lambda: shard.up)
        await eventually(lambda: not one._parts.ownership.restoration.due)
        assert await two.send(away, "alice", "again", confirm=True)
        assert await one.count(away) == 1
        assert "again" in await members[away].wait_sent()
        assert one.statistics()["incarnation"] == incarnation
        assert one.statistics()["rejoins"] == 0
