"""Registering again at one of several shards, while the rest of the node goes on."""

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError, IdTakenError, SendResult, Timing
from cluster_pool.backplane.in_steps import STEP, in_steps
from cluster_pool.backplane.slots import slot_of
from cluster_pool.cluster.reconciler import Reconciler
from cluster_pool.cluster.restoration import Restoration
from cluster_pool.testing import FAST
from tests.clusters import Pool
from tests.redis_clusters import away_from_home, cluster_pools, namespaces_of
from tests.support import async_test, eventually
from tools.harness.members import Member
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
        members = [await one.host(name, f"member-{at}") for at in range(300)]
        for other in others:
            await one.host(other, "alice")
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
            await one.host(name, "alice")
        before = one.statistics()["incarnation"]
        home.call("DEL", "cluster_pool:{~}:leases")
        await eventually(lambda: one.statistics()["incarnation"] != before, 20)
        await eventually(lambda: one.ready and two.ready, 20)
        for name in names:
            assert await two.send(name, "alice", "x", confirm=True)
            assert await two.count(name) == 1


@async_test
async def test_many_namespaces_take_calls_for_each_slot_and_not_for_each_of_them(
    redis: RedisCluster,
) -> None:
    """As a node has them that holds 100,000: subscribing, counting and registering again."""
    away = away_from_home(redis)[0]
    first = next(first for first, _, ids in redis.ranges() if ids[0] == away.id)
    names = names_in(range(first, first + SOME), each=12)
    async with cluster_pools(redis, 1, timing=Timing()) as (one,):
        await asyncio.gather(*[one.host(name, "alice", timeout=30) for name in names])
        shard = one._parts.backplane.topology.of(names[0])
        asked, begun = made(redis), shard.generation
        away.call("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(lambda: shard.up and shard.generation > begun, 20)
        await eventually(lambda: not one._parts.ownership.restoration.due, 20)
        subscribed, scripts = (now - then for now, then in zip(made(redis), asked, strict=True))
        assert SOME <= subscribed < 2 * SOME
        assert 2 * SOME <= scripts < 4 * SOME + PROBES < len(names)
        asked, rejoins = made(redis), one.statistics()["rejoins"]
        redis.primary_of("{~}").call("DEL", "cluster_pool:{~}:leases")
        await eventually(lambda: one.statistics()["rejoins"] > rejoins and one.ready, 20)
        subscribed, scripts = (now - then for now, then in zip(made(redis), asked, strict=True))
        assert subscribed == 0
        assert SOME <= scripts < 5 * SOME + PROBES < len(names)


SOME = 30
PROBES = 100
"""Scripts that a node calls meanwhile whatever it holds, at most."""


def made(redis: RedisCluster) -> tuple[int, int]:
    """How many subscriptions and scripts all primaries were asked for."""
    stats = [one.call("INFO", "commandstats") for one in redis.primaries]
    subscribed, scripts = (
        sum(one.get(f"cmdstat_{name}", {"calls": 0})["calls"] for one in stats)
        for name in ("ssubscribe", "evalsha")
    )
    return subscribed, scripts


def names_in(slots: range, each: int) -> list[str]:
    """So many namespaces in each of these slots, in no order."""
    found: dict[int, list[str]] = {slot: [] for slot in slots}
    left, number = len(slots) * each, 0
    while left:
        name, number = f"room-{number}", number + 1
        names = found.get(slot_of(name))
        if names is not None and len(names) < each:
            names.append(name)
            left -= 1
    return [names[at] for at in range(each) for names in found.values()]


@async_test
async def test_no_member_is_called_absent_while_a_shard_gets_its_claims_again(
    redis: RedisCluster,
) -> None:
    """Its primary came back empty, and the owner's node has not reached it yet. Other shards go
    on."""
    lost, name = away_from_home(redis)
    other = next(one for port, (one,) in namespaces_of(redis).items() if port != lost.port)
    async with (
        redis.network() as network,
        cluster_pools(redis, 1) as (one,),
        Pool(network.url, node_id="node-2", timing=FAST) as two,
    ):
        await two.host(name, "bob")
        shard = one._parts.backplane.topology.of(name)
        generation = shard.generation
        network.proxies[redis.nodes.index(lost)].hold()
        await asyncio.to_thread(restarted, lost)
        await eventually(lambda: shard.up and shard.generation > generation, 20)
        assert await one.send(other, "nobody", "x") is SendResult.ABSENT
        sending = asyncio.ensure_future(one.send(name, "bob", "x", timeout=5))
        await asyncio.sleep(0.3)
        assert not sending.done()
        with pytest.raises(BackplaneUnavailableError, match="no member is registered"):
            await sending
        network.proxies[redis.nodes.index(lost)].heal()
        await eventually(lambda: lost.call("HLEN", f"cluster_pool:{{{name}}}:members") == 1, 20)
        assert await one.send(name, "bob", "x", confirm=True) is SendResult.DELIVERED


def restarted(member: Member) -> None:
    """SIGKILL it, and start it without its data, in its place of the cluster."""
    member.server.kill()
    member.server.start()


class Watched:
    """One shard, its topology and table, and all else that a restoration needs."""

    spans = up = held = True
    generation = 1
    incarnation = "start.0"

    def __init__(self, names: list[str]) -> None:
        self.names = dict.fromkeys(names)
        self.shards = (None, self)  # home first
        self.looked_at = 0
        self.registered: list[str] = []

    def of(self, name: str) -> "Watched":
        self.looked_at += 1
        return self

    async def by_shard(self, names: set[str]) -> dict["Watched", list[str]]:
        found: list[str] = []
        async for part in in_steps(names):
            found += [name for name in part if self.of(name) is self]
        return {self: found}

    def namespaces(self) -> list[str]:
        return list(self.names)

    def namespace(self, name: str) -> dict[str, Any] | None:
        return {} if name in self.names else None

    async def wait_held(self) -> None: ...

    async def connected(self, deadline: None) -> SimpleNamespace:
        return SimpleNamespace()

    async def register(self, links: Any, names: list[str], *others: Any) -> None:
        self.registered += names


@async_test
async def test_a_claim_that_is_not_registered_again_yet_is_no_drift(redis: RedisCluster) -> None:
    """The reconciler compares a namespace once its claims are registered over the new link."""
    async with cluster_pools(redis) as (one, _):
        await one.host("n", "alice")
        reconciler, restoration = one._parts.reconciler, one._parts.ownership.restoration
        assert await compared(reconciler) == ["n"]
        restoration._due.add("n")
        assert await compared(reconciler) == []
        restoration._due.discard("n")
        assert await compared(reconciler) == ["n"]


async def compared(reconciler: Reconciler) -> list[str]:
    """The namespaces that it compares at the next heartbeat, if it has them all before it."""
    reconciler._to_visit.clear()
    return await reconciler._next_part()


@async_test
async def test_a_shard_with_many_namespaces_does_not_hold_up_the_loop_when_it_comes_back() -> None:
    """No turn of the loop looks at more namespaces than two steps have."""
    names = [f"room-{at}" for at in range(10 * STEP)]
    all_parts: Any = Watched(names)
    restoration = Restoration(all_parts, all_parts, all_parts, all_parts, Timing())
    restoration.shard_up(all_parts)
    most = 0
    while restoration.due:
        before = all_parts.looked_at
        await asyncio.sleep(0)
        most = max(most, all_parts.looked_at - before)
    assert STEP <= most <= 2 * STEP
    assert sorted(all_parts.registered) == sorted(names)
    await restoration.stop()


@async_test
async def test_a_namespace_that_becomes_due_while_others_are_looked_for_is_registered() -> None:
    """The task of a shard ends only when nothing became due since it began to look."""
    all_parts: Any = Watched([f"room-{at}" for at in range(3 * STEP)])
    restoration = Restoration(all_parts, all_parts, all_parts, all_parts, Timing())
    restoration.shard_up(all_parts)
    await eventually(lambda: not restoration.due)
    all_parts.registered.clear()
    restoration.moved(range(16_384))
    restoration.moved(range(16_384))
    await eventually(lambda: not restoration.due)
    assert set(all_parts.registered) == set(all_parts.names)
    await restoration.stop()


@async_test
async def test_a_node_that_lives_on_keeps_its_ids_at_a_shard_that_it_does_not_reach(
    redis: RedisCluster,
) -> None:
    """It has another lease meanwhile. Its members there are not removed, and their ids are not
    given away; when it reaches the shard again, they are as they were."""
    away, name = away_from_home(redis)
    key = f"cluster_pool:{{{name}}}:members"
    async with (
        redis.network() as network,
        cluster_pools(redis, 1) as (one,),
        Pool(network.url, node_id="far", timing=FAST) as far,
    ):
        ways = dict(zip(redis.nodes, network.proxies, strict=True))
        bob = await far.host(name, "bob")
        emptied: list[str] = []
        one.on("empty", emptied.append)
        rejoins = far.statistics()["rejoins"]
        await ways[away].refuse()
        await ways[redis.primary_of("{~}")].cut()
        await eventually(lambda: far.statistics()["rejoins"] > rejoins, 20)
        for pause in (FAST.heartbeat, FAST.lease + 2 * FAST.heartbeat):
            await asyncio.sleep(pause)  # its former lease is over after the second
            assert away.call("HLEN", key) == 1
            with pytest.raises(IdTakenError):
                await one.host(name, "bob", on_conflict="reject")
            assert await one.send(name, "bob", "x") is SendResult.UNREACHABLE
        await ways[away].accept()
        await eventually(lambda: one.send(name, "bob", "y", confirm=True))
        assert bob.closed is None
        assert emptied == []
        dead = redis.primary_of("{~}")
        await eventually(lambda: not dead.call("HLEN", "cluster_pool:{~}:dead"), 20)
        assert await one.count(name) == 1


@async_test
async def test_a_doubt_outlasts_the_repair_of_other_namespaces(redis: RedisCluster) -> None:
    """It is about a namespace whose shard is still being restored, and is looked at after that."""
    async with cluster_pools(redis, 1) as (one,):
        await one.host("room", "alice")
        ownership, incarnation = one._parts.ownership, one._parts.lease.incarnation
        members, owners = (f"cluster_pool:{{hall}}:{what}" for what in ("members", "owners"))
        redis.command("HSET", members, "ghost", f"{incarnation}:1:zz")
        redis.command("HSET", owners, incarnation, "1", f"{incarnation}#", "1")
        ownership.restoration._due.add("hall")
        ownership.releases.doubt("hall")
        stray = ("cluster_pool:{room}:members", "stray")
        redis.command("HSET", *stray, "no claim")
        await eventually(lambda: redis.command("HEXISTS", *stray) == ":0\r\n", 20)
        assert redis.command("EXISTS", members) == ":1\r\n"
        ownership.restoration._due.discard("hall")
        await eventually(lambda: redis.command("EXISTS", members) == ":0\r\n", 20)
