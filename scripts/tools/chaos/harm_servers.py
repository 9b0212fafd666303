"""The faults that only several servers can have, and the faults of each kind of Redis."""

import asyncio
import random
import time

from tools.chaos.cluster import ANY, CLUSTER, NAMESPACES, SENTINEL, Cluster
from tools.chaos.faults import Fault, Faults, Harm
from tools.chaos.harm import FAULTS, HOLE
from tools.chaos.harm_primary import HOME, PRIMARY_FAULTS, Victim, promote_replica, restart
from tools.harness.redis_cluster import RedisCluster, SlotMove
from tools.harness.redis_sentinel import RedisSentinel

MOVES = 3
HALF = 0.3
"""Seconds for which a slot is half-way."""
AWAY = 4.0
"""Seconds for which a whole shard is away: longer than nodes need to notice it."""

CLUSTER_FAULTS, SENTINEL_FAULTS = Faults(), Faults()


def _redis(cluster: Cluster) -> RedisCluster:
    if not isinstance(cluster.redis, RedisCluster):
        raise ValueError("this fault needs a Redis Cluster")
    return cluster.redis


@CLUSTER_FAULTS.named("slot-moves")
async def move_slots(cluster: Cluster, chance: random.Random) -> Harm:
    """A slot goes to another primary, and another, each time half-way for a while."""
    redis, tag = _redis(cluster), chance.choice([HOME, *NAMESPACES])
    for _ in range(MOVES):
        await asyncio.to_thread(_move, redis, tag)
        await asyncio.to_thread(redis.wait_until_whole)
    return Harm(f"the slot of {tag} moved {MOVES} times", forgets=True)


def _move(redis: RedisCluster, tag: str) -> None:
    slot, source = redis.slot_of(f"{{{tag}}}"), redis.primary_of(f"{{{tag}}}")
    move = SlotMove(redis, slot, next(one for one in redis.primaries if one is not source))
    keys = move.keys
    for key in keys[: len(keys) // 2]:
        move.carry(key)
    time.sleep(HALF)
    move.finish()


@CLUSTER_FAULTS.named("seized")
async def seize(cluster: Cluster, chance: random.Random) -> Harm:
    """A replica becomes the primary without asking anybody; both are alive."""
    victim = Victim(cluster, chance)
    await promote_replica(victim.redis, victim.primary, "TAKEOVER")
    return Harm(
        f"the replica for {victim.tag} seized power", repair=victim.wait_until_whole, forgets=True
    )


@CLUSTER_FAULTS.named("shard-lost")
async def lose_shard(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGKILL of a primary and its replica, which come back empty or from their snapshots."""
    redis, victim = _redis(cluster), Victim(cluster, chance)
    empty = chance.random() < 0.5
    shard = [victim.primary, *redis.replicas_of(victim.primary)]
    for one in shard:
        one.server.kill()
    await asyncio.sleep(AWAY)
    await restart(redis, shard, empty=empty)
    state = "empty" if empty else "as it was"
    what = f"primary and replica of {victim.tag} killed, down for {AWAY:g} s, {state}"
    return Harm(what, forgets=True)


@CLUSTER_FAULTS.named("restarted-in-turn")
async def restart_cluster(cluster: Cluster, chance: random.Random) -> Harm:
    """Each primary is restarted after its replica was promoted, one after another."""
    redis = _redis(cluster)
    for primary in await asyncio.to_thread(lambda: redis.primaries):
        await promote_replica(redis, primary)
        await asyncio.to_thread(redis.wait_until_whole)
        primary.server.kill()
        await restart(redis, [primary])
    return Harm("every primary restarted, one after another", forgets=True)


@SENTINEL_FAULTS.named("sentinels-killed")
async def kill_sentinels(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGKILL of one sentinel, of two or of all, while the primary is well."""
    assert isinstance(cluster.redis, RedisSentinel)
    some = chance.sample(cluster.redis.sentinels, chance.choice((1, 2, 3)))
    for one in some:
        one.server.kill()
    await asyncio.sleep(HOLE)
    await restart(cluster.redis, some)
    return Harm(f"{len(some)} of 3 sentinels killed, away for {HOLE:g} s", frozenset())


@SENTINEL_FAULTS.named("restarted-in-turn")
async def restart_servers(cluster: Cluster, chance: random.Random) -> Harm:
    """The primary is restarted after its replica was promoted, and every sentinel with it."""
    assert isinstance(cluster.redis, RedisSentinel)
    redis, primary = cluster.redis, cluster.redis.primary
    await promote_replica(redis, primary)
    await asyncio.to_thread(redis.wait_until_whole)
    for one in (primary, *redis.sentinels):
        one.server.kill()
        await restart(redis, [one])
    return Harm("the primary and every sentinel restarted, one after another", forgets=True)


GROUPS = (
    ("", ANY, FAULTS),
    ("of a primary with a replica", (CLUSTER, SENTINEL), PRIMARY_FAULTS),
    ("of a Redis Cluster", (CLUSTER,), CLUSTER_FAULTS),
    ("of a Redis under sentinels", (SENTINEL,), SENTINEL_FAULTS),
)
"""Every fault: whose it is, and at which topologies it can be."""


def faults_of(topology: str) -> dict[str, Fault]:
    """All faults of a topology by their names."""
    return {
        name: fault
        for _, topologies, faults in GROUPS
        if topology in topologies
        for name, fault in faults.items()
    }
