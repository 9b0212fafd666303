"""What the times of closes and of reconnections amount to. Pure."""

import itertools
from bisect import bisect_right
from collections.abc import Sequence


def peak(times: Sequence[float], span: float = 1.0) -> int:
    """The most events within any ``span`` seconds."""
    ordered = sorted(times)
    return max(
        (bisect_right(ordered, at + span - 1e-9) - first for first, at in enumerate(ordered)),
        default=0,
    )


def longest_gap(times: Sequence[float]) -> float:
    """Seconds between two events that follow each other, at most."""
    ordered = sorted(times)
    return max((two - one for one, two in itertools.pairwise(ordered)), default=0.0)


def middle(times: Sequence[float], skip: float = 1.0) -> tuple[float, float]:
    """The span of the events but for the first and the last ``skip`` seconds."""
    return min(times) + skip, max(times) - skip


def between(times: Sequence[float], start: float, end: float) -> list[float]:
    """Those from ``start`` on and before ``end``."""
    return [at for at in times if start <= at < end]


def mean_rate(times: Sequence[float], span: float = 10.0, skip: float = 1.0) -> float:
    """Events per second over ``span`` seconds in the middle, or as many as there are."""
    if not times:
        return 0.0
    start, end = middle(times, skip)
    if end - start < skip:
        start, end = min(times), max(times)
    length = min(span, end - start)
    start += (end - start - length) / 2
    return len(between(times, start, start + length)) / length if length > 0 else 0.0


def per_second(times: Sequence[float], start: float, end: float) -> list[tuple[float, float]]:
    """Events in each second from ``start`` on, four points a second, for a chart."""
    ordered = sorted(times)
    points = []
    at = 0.0
    while at <= end - start:
        now = start + at
        points.append(
            (at, float(bisect_right(ordered, now + 0.5) - bisect_right(ordered, now - 0.5)))
        )
        at += 0.25
    return points
