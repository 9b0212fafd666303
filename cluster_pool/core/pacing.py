"""How many closes are due now at a rate, and in which order. Pure: time and randomness are passed.

The order is stratified: each namespace's members are spread evenly over it, so that no namespace
empties all at once.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from math import inf
from random import Random
from typing import Final, TypeVar

T = TypeVar("T")

STEP: Final = 0.02
"""Seconds between two looks of a pacer."""
CREDIT: Final = 0.06
"""Seconds of unused rate, plus one close, that may be caught up; more would be a burst."""


class Pacer:
    """Spends a rate smoothly, carrying the remainder from step to step.

    Args:
        now: the moment it begins, on any monotonic clock.
        start: the part of the first close that is due at once, from 0 to 1; a random one keeps
            pacers that begin together from closing at the same moments.
    """

    __slots__ = ("_credit", "_last")

    def __init__(self, now: float, start: float = 0.0) -> None:
        self._last = now
        self._credit = start

    def due(self, now: float, rate: float) -> float:
        """How many may be done at ``now``, at ``rate`` per second since the last call.

        They count as done. A whole number, or inf for an infinite rate.
        """
        elapsed, self._last = now - self._last, now
        if rate == inf:
            return inf
        self._credit = min(self._credit + elapsed * rate, 1.0 + CREDIT * rate)
        whole = int(self._credit)
        self._credit -= whole
        return whole


class PeakRate:
    """The most events within any one second."""

    __slots__ = ("_times", "peak")

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self.peak = 0

    def note(self, now: float) -> None:
        """Count one event at ``now``."""
        times = self._times
        times.append(now)
        while times[0] <= now - 1.0:
            times.popleft()
        self.peak = max(self.peak, len(times))


class ArrivalRate:
    """Newcomers per second, over the last few seconds."""

    __slots__ = ("_at", "_count", "_rate")
    SPAN: Final = 2.0
    """The shortest time over which the rate is measured, in seconds."""

    def __init__(self) -> None:
        self._at = -inf
        self._count = 0
        self._rate = 0.0

    def rate(self, count: int, now: float) -> float:
        """The rate at ``now``, when ``count`` have come altogether."""
        if now - self._at >= self.SPAN:
            self._rate = (count - self._count) / (now - self._at)
            self._at, self._count = now, count
        return self._rate


def stratified(groups: Iterable[Sequence[T]], random: Random) -> list[T]:
    """The members of all groups in random order, those of each group evenly apart."""
    placed: list[tuple[float, float, T]] = []
    for group in groups:
        shuffled = random.sample(group, len(group))
        offset = random.random()
        placed += (
            ((at + offset) / len(group), random.random(), one) for at, one in enumerate(shuffled)
        )
    placed.sort(key=lambda entry: entry[:2])
    return [one for _, _, one in placed]
