"""The readers of joins and leaves: a bounded queue each, in which what is lost is said."""

import asyncio
from collections import deque
from typing import Final

from cluster_pool.core.events import read_events
from cluster_pool.core.results import MemberEvent
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import PoolClosedError

QUEUE: Final = 10_000
"""Events that wait for one reader."""
LOST: Final = MemberEvent("lost", "", "")


class Watch:
    """The events that one reader has not read yet.

    When it falls behind the oldest events go, and one ``LOST`` stands in their place.
    """

    __slots__ = ("_counters", "_events", "_filled", "_lost", "_stopped")

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._events: deque[MemberEvent] = deque()
        self._lost = False
        self._stopped = False
        self._filled = asyncio.Event()

    def put(self, event: MemberEvent) -> None:
        """Add one event."""
        if len(self._events) >= QUEUE:
            counted = self._events.popleft() is LOST or self._lost
            self._counters.watch_losses += not counted
            self._lost = True
        self._events.append(event)
        self._filled.set()

    def lose(self) -> None:
        """Something was missed here, behind all that was put; said once until more is put."""
        if not (self._events[-1] is LOST if self._events else self._lost):
            self._counters.watch_losses += 1
            self.put(LOST)

    def stop(self) -> None:
        """Nothing more will be put."""
        self._stopped = True
        self._filled.set()

    async def get(self) -> MemberEvent:
        """The next event, waited for; raises PoolClosedError when none will come."""
        while not (self._lost or self._events):
            if self._stopped:
                raise PoolClosedError("stopped")
            self._filled.clear()
            await self._filled.wait()
        if self._lost:
            self._lost = False
            return LOST
        return self._events.popleft()


class Watchers:
    """The readers of each channel of events."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._watches: dict[str, list[Watch]] = {}

    def __contains__(self, channel: str) -> bool:
        return channel in self._watches

    def add(self, channel: str) -> Watch:
        """A new reader, from now on."""
        watch = Watch(self._counters)
        self._watches.setdefault(channel, []).append(watch)
        return watch

    def remove(self, channel: str, watch: Watch) -> None:
        """Take a reader away."""
        watches = self._watches[channel]
        watches.remove(watch)
        if not watches:
            del self._watches[channel]

    def stop(self) -> None:
        """Nothing more will be heard: tell every reader, behind what it has not read yet."""
        for watches in self._watches.values():
            for watch in watches:
                watch.stop()

    def heard(self, channel: str, payload: bytes) -> None:
        """Events have arrived, or with nothing in it the word that some were missed."""
        watches = self._watches[channel]
        if not payload:
            for watch in watches:
                watch.lose()
        for event in read_events(payload):
            for watch in watches:
                watch.put(event)
