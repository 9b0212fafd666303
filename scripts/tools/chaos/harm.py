"""The faults of links, of nodes and of all of Redis: each breaks something, and makes it whole.

A fault gives what it did, in words, and whom it concerned. The first place keeps its node for the
whole run, so that there is one whose memory can be compared.
"""

import asyncio
import contextlib
import random

from tools.chaos.books import LEASE, UNREAD
from tools.chaos.cluster import Cluster
from tools.chaos.faults import Faults, Harm
from tools.chaos.place import Place
from tools.chaos.sparse import SLEEP
from tools.harness import crowd
from tools.harness.programs import Program, program

HOLE = 5.0
"""Seconds of a black hole: longer than a node needs to notice it."""
LATENESS = 0.2
CUTS = 20
CALM = SLEEP + 20.0
NEVER_READ, LARGE, AHEAD = 30, "x" * 65_536, 8
"""Clients that never read; what they are sent, and how often before their node stops."""


FAULTS = Faults()


def _some(cluster: Cluster, chance: random.Random) -> Place:
    return chance.choice(cluster.places)


def _some_sender(cluster: Cluster, chance: random.Random) -> Place:
    return chance.choice(cluster.senders)


def _to(place: Place, what: str) -> Harm:
    return Harm(f"{place.node}: {what}", frozenset((place.node,)))


def _held(place: Place, what: str) -> Harm:
    harm = _to(place, what)
    return harm._replace(held=frozenset((place.node,)))


# -- the network between one node and Redis ------------------------------------------------


@FAULTS.named("cut")
async def cut(cluster: Cluster, chance: random.Random) -> Harm:
    """Both links of a node or of the publisher to Redis are reset."""
    place = _some_sender(cluster, chance)
    await place.proxy.cut()
    return _to(place, "links cut")


@FAULTS.named("cuts")
async def cuts(cluster: Cluster, chance: random.Random) -> Harm:
    """The same to one after another, 20 times in 4 s."""
    for _ in range(CUTS):
        await _some_sender(cluster, chance).proxy.cut()
        await asyncio.sleep(chance.uniform(0.0, 0.4))
    return Harm(f"links cut {CUTS} times, of any node or publisher")


@FAULTS.named("black-hole")
async def black_hole(cluster: Cluster, chance: random.Random) -> Harm:
    """A node and Redis hear nothing of each other, nor of a broken link."""
    return await _held_back(_some_sender(cluster, chance), "a black hole")


@FAULTS.named("deaf")
async def deaf(cluster: Cluster, chance: random.Random) -> Harm:
    """A node hears nothing of Redis, which hears it."""
    return await _held_back(_some_sender(cluster, chance), "hears nothing of Redis", upwards=False)


@FAULTS.named("mute")
async def mute(cluster: Cluster, chance: random.Random) -> Harm:
    """Redis hears nothing of a node, which hears it."""
    return await _held_back(_some_sender(cluster, chance), "is not heard", downwards=False)


async def _held_back(place: Place, what: str, **directions: bool) -> Harm:
    place.proxy.hold(**directions)
    await asyncio.sleep(HOLE)
    place.proxy.heal()
    return _to(place, f"{what} for {HOLE:g} s")


@FAULTS.named("delay")
async def delay(cluster: Cluster, chance: random.Random) -> Harm:
    """Everything between a node and Redis is late."""
    place = _some_sender(cluster, chance)
    place.proxy.delay = LATENESS
    await asyncio.sleep(3)
    place.proxy.heal()
    return _to(place, f"everything {LATENESS:g} s late for 3 s")


@FAULTS.named("refuse")
async def refuse(cluster: Cluster, chance: random.Random) -> Harm:
    """A node is cut and refused when it comes back."""
    place = _some_sender(cluster, chance)
    seconds = chance.choice((0.3, 3.0, 6.0))
    await place.proxy.refuse()
    await asyncio.sleep(seconds)
    await place.proxy.accept()
    return _to(place, f"refused by Redis for {seconds:g} s")


# -- one node ------------------------------------------------------------------------------


@FAULTS.named("freeze")
async def freeze(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGSTOP of a node, for less than its lease."""
    place = _some(cluster, chance)
    await _frozen(cluster, place, 3)
    return _held(place, "frozen for 3 s")


@FAULTS.named("freeze-past-lease")
async def freeze_past_lease(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGSTOP of a node past its lease; half of its clients go elsewhere meanwhile."""
    place = _some(cluster, chance)
    seconds = LEASE + 2
    await _frozen(cluster, place, seconds, move=True)
    return _held(place, f"frozen for {seconds:g} s, past its lease, and half of its ids taken over")


async def _frozen(cluster: Cluster, place: Place, seconds: float, *, move: bool = False) -> None:
    place.away = True
    await cluster.list_nodes()
    place.program.freeze()
    try:
        await asyncio.sleep(seconds / 2)
        if move:
            await cluster.clients.ask("move", node=place.node)
        await asyncio.sleep(seconds / 2)
    finally:
        place.program.thaw()
        place.away = False
    await cluster.list_nodes()


@FAULTS.named("kill")
async def kill(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGKILL of a node; a fresh one under another id comes in its place."""
    place = chance.choice(cluster.places[1:])
    dead = place.node
    await cluster.replace(place, kill=True)
    return Harm(
        f"{dead}: killed, {place.node} in its place",
        frozenset((dead, place.node)),
        frozenset((dead,)),
        ghosts=True,
    )


@FAULTS.named("nothing")
async def nothing(cluster: Cluster, chance: random.Random) -> Harm:
    """Time for what is left alone to be forgotten by Redis, and spoken to again."""
    await asyncio.sleep(CALM)
    return Harm(f"nothing for {CALM:g} s", frozenset())


@FAULTS.named("stop")
async def stop(cluster: Cluster, chance: random.Random) -> Harm:
    """A node stops while it sends and is sent to; a fresh one under another id takes its place."""
    place = chance.choice(cluster.places[1:])
    gone = place.node
    await cluster.replace(place, kill=False)
    return Harm(f"{gone}: stopped, {place.node} in its place", frozenset((gone, place.node)))


@FAULTS.named("unread")
async def unread(cluster: Cluster, chance: random.Random) -> Harm:
    """Clients that never read are cut; then their node stops while others fill its buffers."""
    place = chance.choice(cluster.places[1:])
    gone = place.node
    async with _never_reading(place):
        while (await place.program.ask("state"))[-1]:
            await cluster.shout(UNREAD, LARGE)
    async with _never_reading(place):
        for _ in range(AHEAD):
            await cluster.shout(UNREAD, LARGE)
        await cluster.replace(place, kill=False)
    return Harm(
        f"{gone}: {NEVER_READ} clients that never read, stopped with as many; then {place.node}",
        frozenset((gone, place.node)),
    )


def _never_reading(place: Place) -> contextlib.AbstractAsyncContextManager[Program]:
    words = (str(place.port), f"/ws/{UNREAD}", str(NEVER_READ), crowd.STUCK)
    return program("tools.harness.crowd", *words)


# -- Redis ---------------------------------------------------------------------------------


@FAULTS.named("redis-frozen-1")
async def freeze_redis(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGSTOP of Redis for 1 s."""
    return await _redis_frozen(cluster, 1)


@FAULTS.named("redis-frozen-5")
async def freeze_redis_for_long(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGSTOP of Redis for 5 s."""
    return await _redis_frozen(cluster, 5)


async def _redis_frozen(cluster: Cluster, seconds: float) -> Harm:
    cluster.redis.freeze()
    try:
        await asyncio.sleep(seconds)
    finally:
        cluster.redis.thaw()
    return Harm(f"Redis frozen for {seconds:g} s")


@FAULTS.named("redis-empty")
async def restart_redis(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGKILL of Redis, which comes back with nothing."""
    seconds = chance.choice((0.3, 3.0))
    await _restart(cluster, seconds, empty=True)
    return Harm(f"Redis killed, down for {seconds:g} s, empty", forgets=True)


@FAULTS.named("redis-snapshot")
async def restore_redis(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGKILL of Redis, which comes back as it was when the round began."""
    seconds = chance.choice((0.3, 3.0))
    await _restart(cluster, seconds, empty=False)
    return Harm(f"Redis killed, down for {seconds:g} s, back from a snapshot", forgets=True)


@FAULTS.named("redis-away")
async def take_redis_away(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGKILL of Redis, which stays away for several times the time-out of a call."""
    seconds, empty = chance.uniform(5.0, 20.0), chance.random() < 0.5
    await _restart(cluster, seconds, empty=empty)
    state = "empty" if empty else "as it was"
    return Harm(f"Redis killed, down for {seconds:.1f} s, {state}", forgets=True)


async def _restart(cluster: Cluster, seconds: float, *, empty: bool) -> None:
    cluster.redis.kill()
    await asyncio.sleep(seconds)
    cluster.redis.launch(empty=empty)
    await asyncio.to_thread(cluster.redis.wait_until_it_answers)  # the proxies run on this loop
