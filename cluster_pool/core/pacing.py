"""How many closes are due now, at a rate. Pure: ``now`` is given, nothing is read here."""

from collections import deque

STEP = 0.02
"""Seconds between two looks of a pacer."""
CREDIT = 0.06
"""Seconds of unused rate that may be caught up after a stall; more would be a burst."""


class Pacer:
    """Spends a rate smoothly, carrying the remainder from step to step.

    Args:
        rate: per second, more than 0.
        now: the moment it begins, on any monotonic clock.
    """

    __slots__ = ("_credit", "_last", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._last = now
        self._credit = 0.0

    def due(self, now: float) -> int:
        """How many may be done at ``now``; they count as done."""
        self._credit = min(self._credit + (now - self._last) * self.rate, self._most())
        self._last = now
        whole = int(self._credit)
        self._credit -= whole
        return whole

    def _most(self) -> float:
        return max(1.0, CREDIT * self.rate)


class PeakRate:
    """The most events within any one second."""

    __slots__ = ("_times", "peak")

    def __init__(self) -> None:
        self._times: deque[float] = deque()
        self.peak = 0

    def note(self, now: float) -> None:
        """One event at ``now``."""
        times = self._times
        times.append(now)
        while times[0] <= now - 1.0:
            times.popleft()
        self.peak = max(self.peak, len(times))
