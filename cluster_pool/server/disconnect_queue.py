"""The ends of many WebSockets at once, dealt with a few milliseconds at a time.

When a proxy or a network dies, thousands of clients are gone in the same turn of the loop, and the
end of each costs the WebSocket library and us some 60 µs. Everybody else would wait for all of it.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

TURN = 0.002
"""Seconds of one turn of the loop for this. The readers and apps that it wakes cost more again."""


class DisconnectQueue:
    """What is left to do for those who have gone, in the order in which it was noticed."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def add(self, work: Callable[[], None]) -> None:
        """Do this soon: in the next turn of the loop, unless many wait before it."""
        self._waiting.append(work)
        self._schedule()

    def _schedule(self) -> None:
        if self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._work)

    def _work(self) -> None:
        self._scheduled = False
        ends = monotonic() + TURN
        try:
            while self._waiting and monotonic() < ends:
                self._waiting.popleft()()
        finally:
            self._schedule()
