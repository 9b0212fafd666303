"""The faults of a Redis Cluster: slots that move, primaries that die, freeze or are replaced."""

import asyncio
import random
import time
from collections.abc import Callable

from tools.chaos.cluster import CLUSTER, NAMESPACES, Cluster
from tools.chaos.harm import FAULTS, HOLE, Fault, Harm
from tools.harness.members import Member
from tools.harness.redis_cluster import RedisCluster, SlotMove

HOME = "~"
"""The slot of leases and nodes."""
MOVES = 3
HALF = 0.3
"""Seconds for which a slot is half-way."""

CLUSTER_FAULTS: dict[str, Fault] = {}


def faults_of(topology: str) -> dict[str, Fault]:
    """All faults of a topology by their names."""
    return EVERYWHERE if topology == CLUSTER else FAULTS


def fault(name: str) -> Callable[[Fault], Fault]:
    """Call a fault by this name; its docstring is what ``--help`` says of it."""

    def named(inject: Fault) -> Fault:
        CLUSTER_FAULTS[name] = inject
        return inject

    return named


def _redis(cluster: Cluster) -> RedisCluster:
    if not isinstance(cluster.redis, RedisCluster):
        raise ValueError("this fault needs --topology cluster")
    return cluster.redis


async def _some_primary(cluster: Cluster, chance: random.Random) -> tuple[Member, str]:
    """A primary, and what is known to be there."""
    tag = chance.choice([HOME, *NAMESPACES])
    return await asyncio.to_thread(_redis(cluster).primary_of, f"{{{tag}}}"), tag


@fault("slot-moves")
async def move_slots(cluster: Cluster, chance: random.Random) -> Harm:
    """Cluster: a slot goes to another primary, and another, each time half-way for a while."""
    redis, tag = _redis(cluster), chance.choice([HOME, *NAMESPACES])
    for _ in range(MOVES):
        await asyncio.to_thread(_move, redis, tag)
        await asyncio.to_thread(redis.wait_until_whole)
    return Harm(f"the slot of {tag} moved {MOVES} times")


def _move(redis: RedisCluster, tag: str) -> None:
    slot, source = redis.slot_of(f"{{{tag}}}"), redis.primary_of(f"{{{tag}}}")
    move = SlotMove(redis, slot, next(one for one in redis.primaries if one is not source))
    keys = move.keys
    for key in keys[: len(keys) // 2]:
        move.carry(key)
    time.sleep(HALF)
    move.finish()


@fault("primary-killed")
async def kill_primary(cluster: Cluster, chance: random.Random) -> Harm:
    """Cluster: SIGKILL of a primary; its replica takes over, and it comes back as a replica."""
    redis = _redis(cluster)
    primary, tag = await _some_primary(cluster, chance)
    primary.server.kill()
    await asyncio.to_thread(redis.wait_until_whole)
    primary.server.launch()
    await asyncio.to_thread(primary.server.wait_until_it_answers)
    await asyncio.to_thread(redis.wait_until_whole)
    return Harm(f"the primary of {tag} killed, and back as a replica")


@fault("primary-frozen")
async def freeze_primary(cluster: Cluster, chance: random.Random) -> Harm:
    """Cluster: SIGSTOP of a primary for longer than the others wait; its replica takes over."""
    redis = _redis(cluster)
    primary, tag = await _some_primary(cluster, chance)
    primary.server.freeze()
    try:
        await asyncio.sleep(HOLE)
    finally:
        primary.server.thaw()
    await asyncio.to_thread(redis.wait_until_whole)
    return Harm(f"the primary of {tag} frozen for {HOLE:g} s")


@fault("primary-cut-off")
async def cut_primary_off(cluster: Cluster, chance: random.Random) -> Harm:
    """Cluster: no node reaches a primary, which the other primaries do reach."""
    primary, tag = await _some_primary(cluster, chance)
    at = _redis(cluster).nodes.index(primary)
    ways = [place.proxy.proxies[at] for place in cluster.senders]
    for way in ways:
        way.hold()
    await asyncio.sleep(HOLE)
    for way in ways:
        way.heal()
    return Harm(f"the primary of {tag} out of reach for {HOLE:g} s")


@fault("promoted")
async def promote(cluster: Cluster, chance: random.Random) -> Harm:
    """Cluster: a replica becomes the primary by order, and the primary a replica."""
    return await _promoted(cluster, chance, "")


@fault("seized")
async def seize(cluster: Cluster, chance: random.Random) -> Harm:
    """Cluster: a replica becomes the primary without asking anybody; both are alive."""
    return await _promoted(cluster, chance, "TAKEOVER")


async def _promoted(cluster: Cluster, chance: random.Random, how: str) -> Harm:
    redis = _redis(cluster)
    primary, tag = await _some_primary(cluster, chance)
    (replica,) = await asyncio.to_thread(redis.replicas_of, primary)
    await asyncio.to_thread(redis.promote, replica, how)
    await asyncio.to_thread(redis.wait_until_whole)
    return Harm(f"the replica for {tag} promoted{f', {how}' if how else ''}")


EVERYWHERE: dict[str, Fault] = {**FAULTS, **CLUSTER_FAULTS}
