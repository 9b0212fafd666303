"""The quiet namespaces: who belongs to them, which are spoken to at a time, which are left alone.

Every process of a run decides alike, without a word to the others: by name, and by the machine's
monotonic clock.
"""

import functools
import random
from collections.abc import Sequence

PREFIX = "user-"
NOBODY = "nobody"
"""An id that nobody has, in any namespace."""

MOST_IDS = 2
STEADY_EVERY = 3
"""One namespace in so many has members that never leave by themselves."""
FOCUS_EVERY = 8
"""One namespace in so many gets half of the calls, for so long:"""
FOCUS_TIME = 10.0
SLEEP = 70.0
"""Seconds for which a namespace is left alone: longer than a counter without members lives (60)."""
CYCLE = 350.0
"""Seconds from one such time to the next; each namespace has its own times."""


def names(count: int) -> list[str]:
    """So many namespaces."""
    return [f"{PREFIX}{at}" for at in range(count)]


def is_sparse(namespace: str) -> bool:
    """Whether it is one of them."""
    return namespace.startswith(PREFIX)


def ids(namespace: str) -> list[str]:
    """The ids that may be members: one, or two."""
    return [f"tab-{at + 1}" for at in range(1 + _index(namespace) % MOST_IDS)]


def is_steady(namespace: str) -> bool:
    """Whether its members stay."""
    return _index(namespace) % STEADY_EVERY == 0


def asleep(namespace: str, now: float) -> bool:
    """Whether it is left alone at this time."""
    return _into_cycle(namespace, now) < SLEEP


def next_sleep(namespace: str, now: float) -> float:
    """When it is left alone next; the begin of it, if it is already."""
    into = _into_cycle(namespace, now)
    return now - into if into < SLEEP else now - into + CYCLE


def focus(namespaces: Sequence[str], now: float) -> list[str]:
    """Those that everybody speaks to more often at this time."""
    turn = random.Random(int(now // FOCUS_TIME))
    return turn.sample(namespaces, max(1, len(namespaces) // FOCUS_EVERY))


def _into_cycle(namespace: str, now: float) -> float:
    return (now - _begin(namespace)) % CYCLE


@functools.cache
def _begin(namespace: str) -> float:
    return random.Random(namespace).uniform(0.0, CYCLE)


def _index(namespace: str) -> int:
    return int(namespace.removeprefix(PREFIX))
