"""A failover of a Redis Cluster that loses writes: no ghost stays, and no info is an old one."""

import asyncio
import contextlib
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError
from tests.clusters import abandon, vanish
from tests.redis_clusters import away_from_home, cluster_pools
from tests.support import async_test, eventually
from tools.harness.redis_cluster import RedisCluster

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("rejoins", [False, True])
@async_test
async def test_a_release_that_a_failover_loses_leaves_no_ghost(rejoins: bool) -> None:
    """The primary answered it alone, so its replica took over with the member; nobody is left in
    the namespace here, which would else not be compared any more. A node that has just rejoined
    may not judge the owner, which is its own former incarnation, and looks until it may."""
    with RedisCluster(node_timeout=1, apart=True) as redis:
        source, name = away_from_home(redis)
        key = f"cluster_pool:{{{name}}}:members"
        async with redis.network() as network, cluster_pools(network) as (one, two):
            member: Any = await two.host(name, "alice")
            assert await asyncio.to_thread(source.call, "WAIT", 1, 5000) == 1
            redis.cut_off(source)
            await two.remove_connection(member.connection)
            assert source.call("EXISTS", key) == 0
            if rejoins:
                for pool in (one, two):
                    pool._parts.backplane.topology.home.begin_anew("for a new lease")
            await asyncio.to_thread(redis.wait_for_another, source)
            new = redis.primary_of(name)  # it has the member, until a node has looked
            redis.heal()
            await eventually(lambda: new.call("EXISTS", key) == 0, 30)
            assert await one.count(name) == 0
            repaired = one.statistics()["repaired"] + two.statistics()["repaired"]
            assert rejoins or repaired >= 1  # else the reaper may have met it


@async_test
async def test_a_takeover_that_a_failover_loses_leaves_no_ghost() -> None:
    """The member that was closed for it comes back with the replica, and nobody holds it."""
    with RedisCluster(node_timeout=1, apart=True) as redis:
        source, name = away_from_home(redis)
        key = f"cluster_pool:{{{name}}}:members"
        async with redis.network() as network, cluster_pools(network) as (one, two):
            older = await two.host(name, "alice")
            assert await asyncio.to_thread(source.call, "WAIT", 1, 5000) == 1
            redis.cut_off(source)
            newer: Any = await one.host(name, "alice")
            assert await older.wait_closed() == (4409, "taken over")
            await one.remove_connection(newer.connection)
            assert source.call("EXISTS", key) == 0
            await asyncio.to_thread(redis.wait_for_another, source)
            new = redis.primary_of(name)  # it has the older member, until a node has looked
            redis.heal()
            await eventually(lambda: new.call("EXISTS", key) == 0, 30)
            assert await one.count(name) == 0
            await eventually(lambda: one.counters.repaired + two.counters.repaired)


@async_test
async def test_a_reaping_that_a_failover_loses_leaves_no_ghost() -> None:
    """The reaped incarnation is forgotten when its members come back with the replica."""
    with RedisCluster(node_timeout=60, apart=True) as redis:
        source, name = away_from_home(redis)
        replica = redis.replicas_of(source)[0]
        key = f"cluster_pool:{{{name}}}:members"
        async with redis.network() as network, cluster_pools(network) as (one, gone):
            await gone.host(name, "alice")
            await eventually(one._parts.lease.may_judge, 30)
            assert await asyncio.to_thread(source.call, "WAIT", 1, 5000) == 1
            redis.cut_off(source)
            await vanish(gone)
            await eventually(lambda: source.call("EXISTS", key) == 0, 30)
            home = redis.primary_of("{~}")
            await eventually(lambda: home.call("EXISTS", "cluster_pool:{~}:dead") == 0, 30)
            replica.call("CLUSTER", "FAILOVER", "TAKEOVER")
            redis.heal()
            await eventually(lambda: redis.primary_of(name) is replica, 60)
            assert replica.call("EXISTS", key) == 1
            await eventually(lambda: replica.call("EXISTS", key) == 0, 60)
            assert await one.count(name) == 0
            gone._parts.life.state = None  # type: ignore[assignment]  # it is gone: nothing to stop
            await abandon(gone)


@async_test
async def test_an_info_that_a_failover_loses_is_told_again() -> None:
    """It is one of a thousand members, and no count says that it is an old one."""
    with RedisCluster(node_timeout=1, apart=True) as redis:
        source, name = away_from_home(redis)
        async with redis.network() as network, cluster_pools(network) as (one, two):
            others = [two.host(name, f"other {number}") for number in range(1000)]
            await asyncio.gather(*others)
            member: Any = await two.host(name, "alice")
            await member.connection.update_info("old")
            assert await asyncio.to_thread(source.call, "WAIT", 1, 5000) == 1
            redis.cut_off(source)
            await member.connection.update_info("new")
            await asyncio.to_thread(redis.wait_for_another, source)
            redis.heal()

            async def told() -> bool:
                with contextlib.suppress(BackplaneUnavailableError):
                    found = await one.locate(name, "alice")
                    return found is not None and found.info == "new"
                return False

            await eventually(told, 30)
