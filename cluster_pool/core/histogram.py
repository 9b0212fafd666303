"""Counts of durations by their length, as Prometheus reads them."""

from bisect import bisect_left
from typing import Any, Final

BOUNDS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""The longest duration of each bucket, in seconds; one more has all others."""


class Histogram:
    """Durations in seconds. To observe one costs less than a microsecond."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[bisect_left(BOUNDS, seconds)] += 1
        self._sum += seconds

    def as_dict(self) -> dict[str, Any]:
        """The number of durations, their sum, and how many were at most as long as each bound."""
        total, buckets = 0, {}
        for bound, count in zip((*map(str, BOUNDS), "+Inf"), self._counts.copy(), strict=True):
            total += count
            buckets[bound] = total
        return {"count": total, "sum": self._sum, "buckets": buckets}
