"""The faults: each breaks something, waits, and makes it whole again.

A fault gives what it did, in words, and whom it concerned: node ids, or None for all.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from faults.cluster import Cluster, Place


class Harm(NamedTuple):
    """What was done, and to which nodes; None for all."""

    what: str
    nodes: frozenset[str] | None = None


Fault = Callable[[Cluster, random.Random], Awaitable[Harm]]


def _some(cluster: Cluster, chance: random.Random) -> Place:
    return chance.choice(cluster.places)


def _to(place: Place, what: str) -> Harm:
    return Harm(f"{what} of {place.node}", frozenset((place.node,)))


async def cut(cluster: Cluster, chance: random.Random) -> Harm:
    """Both links of a node are reset."""
    place = _some(cluster, chance)
    await place.proxy.cut()
    return _to(place, "links cut")


FAULTS: dict[str, Fault] = {
    "cut": cut,
}
