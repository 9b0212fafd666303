"""Ids that clients fight for, taken over again and again: noticed, and slowed down.

Two clients with one id that come back at once, against the advice on 4409, would take it from each
other hundreds of times in a second. This decides how long their next claim waits.
"""

from collections import deque
from typing import Final

WINDOW: Final = 10.0
"""Seconds."""
TOLERATED: Final = 5
"""Takeovers of one id within the window: a phone that comes back a few times is not slowed down."""
FIRST_DELAY: Final = 0.1
"""Seconds that a claim waits after one takeover more; doubles with each of them."""
LONGEST_DELAY: Final = 2.0
"""Seconds. A fight settles at about one takeover a second, which is below that."""
SHARE: Final = 0.5
"""Part of its caller's time that a claim waits at most."""
_TRACKED: Final = 1024
_COUNTED: Final = 32
"""Takeovers of one id that are remembered: the delay is the longest before that."""


class Takeovers:
    """The recent takeovers of each id, as one node sees them; forgets by itself."""

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        self._recent: dict[tuple[str, str], deque[float]] = {}

    def note(self, namespace: str, id: str, now: float) -> bool:
        """One more takeover at ``now``; True when that is one too many within the window."""
        key = (namespace, id)
        times = self._recent.pop(key, None) or deque(maxlen=_COUNTED)
        self._recent[key] = times
        times.append(now)
        if len(self._recent) > _TRACKED:
            del self._recent[next(iter(self._recent))]
        return self._count(times, now) > TOLERATED

    def delay(self, namespace: str, id: str, now: float, deadline: float) -> float:
        """Seconds that a claim of an id waits before it is sent, 0 unless the id is fought for."""
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
