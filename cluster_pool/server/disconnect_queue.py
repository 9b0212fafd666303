"""Handles the ends of many WebSockets, a few milliseconds at a time.

When a proxy or a network dies, thousands of clients are gone in the same turn of the loop, and the
end of each takes some 60 µs in the WebSocket library and here. In a single turn, they would hold up
every other client.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

TURN = 0.002
"""Seconds of one turn of the loop for this. Readers and apps that it wakes take as long again."""


class DisconnectQueue:
    """The remaining work for clients that are gone, in the order in which they went."""

    def __init__(self) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._scheduled = False

    def add(self, work: Callable[[], None]) -> None:
        """Do ``work`` in the next turn of the loop, or in a later one if much waits before it."""
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
