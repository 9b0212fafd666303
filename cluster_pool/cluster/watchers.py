"""The readers of events, and the bounded queue of one, which marks where events were lost."""

import asyncio
from collections import deque
from typing import Final, Protocol

from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.events import NUMBER, read_event
from cluster_pool.core.results import MemberEvent
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import PoolClosedError

QUEUE: Final = 10_000
"""Events that wait for one reader, at most."""
LOST: Final = MemberEvent("lost", "", "")


class Reader(Protocol):
    """Gets the events of a namespace."""

    def put(self, event: MemberEvent) -> None:
        """Add one event."""

    def lose(self) -> None:
        """Events were missed behind those that were put."""

    def stop(self) -> None:
        """No more events will be put."""


class Watch:
    """The events that one reader has not read yet; a :class:`Reader`.

    When the reader falls behind, the oldest events are replaced by one ``LOST``.
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
        """Events were missed behind those that were put: put ``LOST``, unless it is last."""
        if not (self._events[-1] is LOST if self._events else self._lost):
            self._counters.watch_losses += 1
            self.put(LOST)

    def stop(self) -> None:
        """No more events will be put."""
        self._stopped = True
        self._filled.set()

    async def get(self) -> MemberEvent:
        """Wait for the next event; raises PoolClosedError when none will come."""
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

    def __init__(self) -> None:
        self._readers: dict[str, list[Reader]] = {}

    def __contains__(self, channel: str) -> bool:
        return channel in self._readers

    def add(self, channel: str, reader: Reader) -> None:
        """Give the events of a channel to a reader, from now on."""
        self._readers.setdefault(channel, []).append(reader)

    def remove(self, channel: str, reader: Reader) -> None:
        """Remove a reader."""
        readers = self._readers[channel]
        readers.remove(reader)
        if not readers:
            del self._readers[channel]

    def stop(self) -> None:
        """No more events will come: tell every reader, behind the events that it has."""
        for readers in self._readers.values():
            for reader in readers:
                reader.stop()

    def heard(self, channel: str, payload: bytes) -> None:
        """A payload of events has arrived; an empty one says that some were missed.

        A line without a readable event is one that the readers never hear of: they lose it, unless
        the whole payload has no numbers, and so comes from another program.

        Raises:
            BrokenEnvelopeError: some lines have no event; the readers have those of the others.
        """
        readers = self._readers[channel]
        if not payload:
            for reader in readers:
                reader.lose()
        numbered, broken = NUMBER in payload, 0
        for line in payload.splitlines():
            try:
                event = read_event(line)
            except BrokenEnvelopeError:
                broken += 1
                if numbered:
                    for reader in readers:
                        reader.lose()
                continue
            for reader in readers:
                reader.put(event)
        if broken:
            raise BrokenEnvelopeError("event", broken)
