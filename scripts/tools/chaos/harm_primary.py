"""The faults of one primary that has a replica: under Sentinels, and in a Redis Cluster.

Each of them ends when every slot is served again, by the replica or by the primary; what is left to
repair is done when the nodes have found that out.
"""

import asyncio
import random
from collections.abc import Sequence

from tools.chaos.cluster import NAMESPACES, Cluster
from tools.chaos.faults import Faults, Harm
from tools.chaos.harm import HOLE
from tools.harness.members import Member
from tools.harness.redis_cluster import RedisCluster
from tools.harness.redis_sentinel import RedisSentinel
from tools.harness.servers import RedisServer

HOME = "~"
"""The slot of leases and nodes."""

PRIMARY_FAULTS = Faults()


class Victim:
    """A primary, what is known to be there, and the ways to it of everything that sends."""

    def __init__(self, cluster: Cluster, chance: random.Random) -> None:
        if isinstance(cluster.redis, RedisServer):
            raise ValueError("this fault needs a primary with a replica")
        self.redis = cluster.redis
        self.tag = chance.choice([HOME, *NAMESPACES])
        self.primary = self.redis.primary_of(f"{{{self.tag}}}")
        path = self.primary.server.path
        self._ways = [place.proxy.before(path) for place in cluster.senders]

    async def wait_for_another(self) -> None:
        """Wait until its replica is the primary."""
        await asyncio.to_thread(self.redis.wait_for_another, self.primary)

    async def wait_until_whole(self) -> None:
        """Wait until everything is served, and every replica in sync."""
        await asyncio.to_thread(self.redis.wait_until_whole)

    async def restart(self) -> None:
        """Start it again, empty; it becomes a replica."""
        await restart(self.redis, [self.primary])

    def hold(self) -> None:
        """Let nothing pass between it and those that send."""
        for way in self._ways:
            way.hold()

    def heal(self) -> None:
        """Let everything pass again."""
        for way in self._ways:
            way.heal()
        self.redis.heal()


async def restart(
    redis: RedisCluster | RedisSentinel, members: Sequence[Member], *, empty: bool = True
) -> None:
    """Start servers that were killed, and wait until each is what it is to be."""
    for one in members:
        one.server.launch(empty=empty)  # not in a thread, with which it would die
    for one in members:
        await asyncio.to_thread(one.server.wait_until_it_answers)
    await asyncio.to_thread(redis.wait_until_whole)


async def promote_replica(redis: RedisCluster | RedisSentinel, old: Member, how: str = "") -> None:
    """Have the replica of a primary promoted by order."""
    if isinstance(redis, RedisSentinel):
        await asyncio.to_thread(redis.failover)
        return
    (replica,) = await asyncio.to_thread(redis.replicas_of, old)
    await asyncio.to_thread(redis.promote, replica, how)


@PRIMARY_FAULTS.named("primary-killed")
async def kill(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGKILL of a primary; its replica takes over, and it comes back as a replica."""
    victim = Victim(cluster, chance)
    victim.primary.server.kill()
    await victim.wait_for_another()
    return Harm(f"the primary of {victim.tag} killed", repair=victim.restart, forgets=True)


@PRIMARY_FAULTS.named("primary-frozen")
async def freeze(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGSTOP of a primary until its replica has taken over and everything is well."""
    victim = Victim(cluster, chance)
    victim.primary.server.freeze()
    await victim.wait_for_another()

    async def thaw() -> None:
        victim.primary.server.thaw()
        await victim.wait_until_whole()

    return Harm(f"the primary of {victim.tag} frozen", repair=thaw, forgets=True)


@PRIMARY_FAULTS.named("primary-unreachable")
async def cut_from_nodes(cluster: Cluster, chance: random.Random) -> Harm:
    """No node reaches a primary, which the other servers do reach: nothing is promoted."""
    victim = Victim(cluster, chance)
    victim.hold()
    await asyncio.sleep(HOLE)
    victim.heal()
    return Harm(f"the primary of {victim.tag} cut off from the nodes for {HOLE:g} s")


@PRIMARY_FAULTS.named("primary-split")
async def cut_from_servers(cluster: Cluster, chance: random.Random) -> Harm:
    """The other servers do not reach a primary, which nodes do; its replica takes over."""
    return await _cut_off(Victim(cluster, chance), "the other servers")


@PRIMARY_FAULTS.named("primary-alone")
async def cut_from_all(cluster: Cluster, chance: random.Random) -> Harm:
    """Neither the other servers nor nodes reach a primary; its replica takes over."""
    victim = Victim(cluster, chance)
    victim.hold()
    return await _cut_off(victim, "everybody")


async def _cut_off(victim: Victim, whom: str) -> Harm:
    victim.redis.cut_off(victim.primary)
    await victim.wait_for_another()

    async def heal() -> None:
        victim.heal()
        await victim.wait_until_whole()

    return Harm(f"the primary of {victim.tag} cut off from {whom}", repair=heal, forgets=True)


@PRIMARY_FAULTS.named("promoted")
async def promote(cluster: Cluster, chance: random.Random) -> Harm:
    """A replica becomes the primary by order, and the primary a replica."""
    victim = Victim(cluster, chance)
    await promote_replica(victim.redis, victim.primary)
    return Harm(
        f"the replica for {victim.tag} promoted", repair=victim.wait_until_whole, forgets=True
    )
