"""Reads histories in pages, whose size is bounded in entries and bytes."""

from collections.abc import AsyncIterator
from typing import Final, NamedTuple

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.topology import Topology
from cluster_pool.core.history import Entry, History, Position, bounds_in
from cluster_pool.core.keys import Keys

PAGE: Final = 200
"""Entries of a page at most."""
PAGE_BYTES: Final = 1024 * 1024
"""Bytes of a page, at which no more are added; the last entries may exceed it."""
UNRECORDED: Final = History()
"""In place of the bounds of a history that is not recorded; it has no entries."""


class Page(NamedTuple):
    """A page of a history, and where the history stood when it was read.

    Attributes:
        position: of the last message; its epoch is "" if no history is recorded.
        history: the bounds that count.
        now: the time of Redis in ms.
        entries: those that can be read, in the order asked for.
    """

    position: Position
    history: History
    now: int
    entries: list[Entry]

    def is_held(self, entry: Entry, number: int) -> bool:
        """Whether the message with a number is within the bounds, which the stream exceeds."""
        return (
            entry.header.counter_epoch == self.position.epoch
            and number > self.position.number - self.history.messages
            and entry.time >= self.now - 1000 * self.history.seconds
        )


class Histories:
    """Reads the histories of namespaces."""

    def __init__(self, topology: Topology, keys: Keys) -> None:
        self._topology = topology
        self._keys = keys

    async def position(self, namespace: str, deadline: float) -> Position:
        """The position of the last message; that of no epoch if no history is recorded."""
        return (await self._read(namespace, "+", True, 0, deadline))[0].position

    async def newest_first(self, namespace: str, most: int, deadline: float) -> AsyncIterator[Page]:
        """Pages from the last message back, the first with ``most`` entries at most."""
        start: str | None = "+"
        while start is not None:
            page, start = await self._read(namespace, start, True, min(most, PAGE), deadline)
            most = PAGE
            yield page

    async def _read(
        self, namespace: str, start: str, newest_first: bool, most: int, deadline: float
    ) -> tuple[Page, str | None]:
        """A page, and where the next one begins; None if this is the last one."""
        call = script_calls.read_history(
            self._keys,
            namespace,
            start=start,
            newest_first=int(newest_first),
            most=most,
            most_bytes=PAGE_BYTES,
        )
        epoch, number, bounds, now, entries, more = await self._topology.script(deadline, call)
        position = Position(epoch.decode(), int(number or 0))
        history = bounds_in(bounds) if bounds else UNRECORDED
        read = [Entry.read(fields) for _, fields in entries]
        page = Page(position, history, now, [entry for entry in read if entry is not None])
        return page, f"({entries[-1][0].decode()}" if more and entries else None
