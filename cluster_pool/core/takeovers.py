"""Noticing an id that two clients fight for: taken over again and again in a short time."""

from collections import deque

WINDOW = 10.0
"""Seconds."""
TOLERATED = 5
"""Takeovers of one id within the window."""
_TRACKED = 1024


class Takeovers:
    """The recent takeovers of each id; forgets by itself."""

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        self._recent: dict[tuple[str, str], deque[float]] = {}

    def note(self, namespace: str, id: str, now: float) -> bool:
        """One more takeover at ``now``; True when that is one too many within the window."""
        key = (namespace, id)
        times = self._recent.pop(key, None) or deque()
        self._recent[key] = times
        times.append(now)
        while times[0] <= now - WINDOW:
            times.popleft()
        if len(self._recent) > _TRACKED:
            del self._recent[next(iter(self._recent))]
        return len(times) > TOLERATED
