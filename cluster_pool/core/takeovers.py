"""Detects ids that clients take over from each other again and again, and slows their claims down.

Two clients with one id that come back at once, against the advice on 4409, would take the id over
from each other hundreds of times per second. This decides how long their next claim waits.
"""

from collections import deque
from typing import Final

WINDOW: Final = 10.0
"""Seconds."""
TOLERATED: Final = 5
"""Takeovers of one id in the window that are not slowed down: a phone may reconnect a few times."""
FIRST_DELAY: Final = 0.1
"""Seconds that a claim waits after the first takeover beyond; doubles with each further one."""
LONGEST_DELAY: Final = 2.0
"""Seconds. A fight levels off at about one takeover per second, so the delay stays below this."""
SHARE: Final = 0.5
"""The longest wait of a claim, as a part of its caller's time."""
_TRACKED: Final = 1024
_COUNTED: Final = 32
"""Takeovers of one id that are remembered; the delay reaches its maximum earlier."""


class Takeovers:
    """The recent takeovers of each id, as one node sees them; forgets by itself."""

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        self._recent: dict[tuple[str, str], deque[float]] = {}

    def note(self, namespace: str, id: str, now: float) -> bool:
        """Count one takeover at ``now``; True when there are too many within the window."""
        key = (namespace, id)
        times = self._recent.pop(key, None) or deque(maxlen=_COUNTED)
        self._recent[key] = times
        times.append(now)
        if len(self._recent) > _TRACKED:
            del self._recent[next(iter(self._recent))]
        return self._count(times, now) > TOLERATED

    def delay(self, namespace: str, id: str, now: float, deadline: float) -> float:
        """Seconds that a claim of an id must wait before it is sent; 0 for most ids."""
        times = self._recent.get((namespace, id))
        if times is None:
            return 0.0
        beyond = self._count(times, now) - TOLERATED
        if beyond <= 0:
            return 0.0
        delay = min(FIRST_DELAY * 2.0 ** (beyond - 1), LONGEST_DELAY)
        return max(0.0, min(delay, (deadline - now) * SHARE))

    @staticmethod
    def _count(times: deque[float], now: float) -> int:
        while times and times[0] <= now - WINDOW:
            times.popleft()
        return len(times)
