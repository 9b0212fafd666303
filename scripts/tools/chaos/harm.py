"""The faults: each breaks something, waits, and makes it whole again.

A fault gives what it did, in words, and whom it concerned. The first place keeps its node for the
whole run, so that there is one whose memory can be compared.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NamedTuple

from tools.chaos.books import LEASE
from tools.chaos.cluster import Cluster, Place
from tools.chaos.sparse import SLEEP

HOLE = 5.0
"""Seconds of a black hole: longer than a node needs to notice it."""
LATENESS = 0.2
CUTS = 20
CALM = SLEEP + 20.0


class Harm(NamedTuple):
    """What was done, and to which nodes; None for all. ``held``: frozen or killed themselves."""

    what: str
    nodes: frozenset[str] | None = None
    held: frozenset[str] = frozenset()


class Fault(NamedTuple):
    """What is broken, for ``--help``, and the function that does it."""

    about: str
    inject: Callable[[Cluster, random.Random], Awaitable[Harm]]


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


async def cut(cluster: Cluster, chance: random.Random) -> Harm:
    """Both links of a node or of the publisher are reset."""
    place = _some_sender(cluster, chance)
    await place.proxy.cut()
    return _to(place, "links cut")


async def cuts(cluster: Cluster, chance: random.Random) -> Harm:
    """Both links of one node after another are reset."""
    for _ in range(CUTS):
        await _some_sender(cluster, chance).proxy.cut()
        await asyncio.sleep(chance.uniform(0.0, 0.4))
    return Harm(f"links cut {CUTS} times, of any node or publisher")


async def _hold(
    cluster: Cluster, chance: random.Random, *, upwards: bool, downwards: bool, what: str
) -> Harm:
    place = _some_sender(cluster, chance)
    place.proxy.hold(upwards=upwards, downwards=downwards)
    await asyncio.sleep(HOLE)
    place.proxy.heal()
    return _to(place, f"{what} for {HOLE:g} s")


async def delay(cluster: Cluster, chance: random.Random) -> Harm:
    """Everything between a node and Redis is late."""
    place = _some_sender(cluster, chance)
    place.proxy.delay = LATENESS
    await asyncio.sleep(3)
    place.proxy.heal()
    return _to(place, f"everything {LATENESS:g} s late for 3 s")


async def refuse(cluster: Cluster, chance: random.Random) -> Harm:
    """A node is cut and refused when it comes back."""
    place = _some_sender(cluster, chance)
    seconds = chance.choice((0.3, 3.0, 6.0))
    await place.proxy.refuse()
    await asyncio.sleep(seconds)
    await place.proxy.accept()
    return _to(place, f"refused by Redis for {seconds:g} s")


# -- one node ------------------------------------------------------------------------------


async def freeze(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGSTOP of a node, for less than its lease."""
    place = _some(cluster, chance)
    await _frozen(cluster, place, 3)
    return _held(place, "frozen for 3 s")


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


async def kill(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGKILL of a node; a fresh one under another id comes in its place."""
    place = chance.choice(cluster.places[1:])
    dead = place.node
    await cluster.replace(place, kill=True)
    return Harm(
        f"{dead}: killed, {place.node} in its place",
        frozenset((dead, place.node)),
        frozenset((dead,)),
    )


async def nothing(cluster: Cluster, chance: random.Random) -> Harm:
    """Time for what is left alone to be forgotten by Redis, and spoken to again."""
    await asyncio.sleep(CALM)
    return Harm(f"nothing for {CALM:g} s", frozenset())


async def stop(cluster: Cluster, chance: random.Random) -> Harm:
    """A node stops while it sends and is sent to; a fresh one under another id takes its place."""
    place = chance.choice(cluster.places[1:])
    gone = place.node
    await cluster.replace(place, kill=False)
    return Harm(f"{gone}: stopped, {place.node} in its place", frozenset((gone, place.node)))


# -- Redis ---------------------------------------------------------------------------------


async def _freeze_redis(cluster: Cluster, chance: random.Random, *, seconds: float) -> Harm:
    cluster.redis.freeze()
    try:
        await asyncio.sleep(seconds)
    finally:
        cluster.redis.thaw()
    return Harm(f"Redis frozen for {seconds:g} s")


async def restart_redis(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGKILL of Redis, which comes back with nothing."""
    seconds = chance.choice((0.3, 3.0))
    await _restart(cluster, seconds, empty=True)
    return Harm(f"Redis killed, down for {seconds:g} s, empty")


async def restore_redis(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGKILL of Redis, which comes back as it was when the round began."""
    seconds = chance.choice((0.3, 3.0))
    await _restart(cluster, seconds, empty=False)
    return Harm(f"Redis killed, down for {seconds:g} s, back from a snapshot")


async def take_redis_away(cluster: Cluster, chance: random.Random) -> Harm:
    """SIGKILL of Redis, which stays away for several times the time-out of a call."""
    seconds, empty = chance.uniform(5.0, 20.0), chance.random() < 0.5
    await _restart(cluster, seconds, empty=empty)
    return Harm(f"Redis killed, down for {seconds:.1f} s, {'empty' if empty else 'as it was'}")


async def _restart(cluster: Cluster, seconds: float, *, empty: bool) -> None:
    cluster.redis.kill()
    await asyncio.sleep(seconds)
    cluster.redis.start(empty=empty)


FAULTS = {
    "cut": Fault("both links of a node to Redis are reset", cut),
    "cuts": Fault("the same to one node after another, 20 times in 4 s", cuts),
    "black-hole": Fault(
        "a node and Redis hear nothing of each other, nor of a broken link",
        partial(_hold, upwards=True, downwards=True, what="a black hole"),
    ),
    "deaf": Fault(
        "a node hears nothing of Redis, which hears it",
        partial(_hold, upwards=False, downwards=True, what="hears nothing of Redis"),
    ),
    "mute": Fault(
        "Redis hears nothing of a node, which hears it",
        partial(_hold, upwards=True, downwards=False, what="is not heard by Redis"),
    ),
    "delay": Fault("everything between a node and Redis is late", delay),
    "refuse": Fault("a node is cut, and refused when it comes back", refuse),
    "freeze": Fault("SIGSTOP of a node, for less than its lease", freeze),
    "freeze-past-lease": Fault(
        "SIGSTOP of a node past its lease; half of its clients go elsewhere", freeze_past_lease
    ),
    "kill": Fault("SIGKILL of a node; a fresh one comes in its place", kill),
    "stop": Fault("a node stops in the midst of its traffic; a fresh one comes in its place", stop),
    "nothing": Fault(f"nothing at all for {CALM:g} s, so that counters expire", nothing),
    "redis-frozen-1": Fault("SIGSTOP of Redis for 1 s", partial(_freeze_redis, seconds=1)),
    "redis-frozen-5": Fault("SIGSTOP of Redis for 5 s", partial(_freeze_redis, seconds=5)),
    "redis-empty": Fault("SIGKILL of Redis, which comes back with nothing", restart_redis),
    "redis-away": Fault("the same, for 5 to 20 s, empty or as it was before", take_redis_away),
    "redis-snapshot": Fault("SIGKILL of Redis, which comes back as it was before", restore_redis),
}
