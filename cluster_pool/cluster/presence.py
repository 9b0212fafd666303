"""Presence: the members of a namespace, kept right from the events, and what changes in them.

The subscription to the events comes first, then the members are read, then the events are applied:
nothing falls in between. Only the last event of each member is kept until it is applied, so a storm
of joins needs no more room than its members do.

A reading may be ahead of the events that are under way to here. What such a member was before may
then be told again, for the moment until its last event has come.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Final

from cluster_pool.core.results import Member, MemberEvent, PresenceChanges
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError, PoolClosedError

AGAIN: Final = 0.5
"""Seconds until the members are read again, when a reading after a loss has failed."""


class LatestEvents:
    """The last event of each member that was not taken yet; a :class:`.Reader` of events."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._events: dict[str, MemberEvent] = {}
        self._lost = False
        self._stopped = False
        self._filled = asyncio.Event()

    def put(self, event: MemberEvent) -> None:
        """See :class:`.Reader`."""
        self._events[event.id] = event
        self._filled.set()

    def lose(self) -> None:
        """See :class:`.Reader`: all members are read again, and no earlier event counts."""
        self._counters.watch_losses += not self._lost
        self._lost = True
        self._filled.set()

    def stop(self) -> None:
        """See :class:`.Reader`."""
        self._stopped = True
        self._filled.set()

    async def wait(self) -> None:
        """Wait until there is something to take; raises PoolClosedError when nothing will come."""
        await self._filled.wait()
        if self._stopped and not (self._events or self._lost):
            raise PoolClosedError("stopped")

    def take(self) -> tuple[list[MemberEvent], bool]:
        """The events since the last call, and whether others were lost before them."""
        events, lost = list(self._events.values()), self._lost
        self._events.clear()
        self._lost = False
        if not self._stopped:
            self._filled.clear()
        return events, lost


class Presence:
    """The members of a namespace, and an iterator of the changes in them, for one task.

    ``async for changes in presence`` gives what has changed since it last gave something, as
    :class:`PresenceChanges`, no more often than every ``every`` seconds; then ``members`` has these
    changes. A member that has come and gone in between is in none. Where events were lost, the
    members are read again, as soon as Redis can be reached, and the changes say so.

    Raises:
        PoolClosedError: (the iterator) the pool was stopped.
    """

    def __init__(
        self, latest: LatestEvents, read: Callable[[], AsyncIterator[Member]], every: float
    ) -> None:
        self._latest = latest
        self._read = read
        self._every = every
        self._due = 0.0
        self._members: dict[str, Member] = {}

    @property
    def members(self) -> Mapping[str, Member]:
        """The members by id, as of the last changes that were given; do not change it."""
        return self._members

    async def begin(self) -> None:
        """Read the members for the first time."""
        self._members = await self._read_all()

    def __aiter__(self) -> AsyncIterator[PresenceChanges]:
        return self

    async def __anext__(self) -> PresenceChanges:
        loop = asyncio.get_running_loop()
        while True:
            await self._latest.wait()
            if self._due > loop.time():
                await asyncio.sleep(self._due - loop.time())
            changes = await self._changes()
            self._due = loop.time() + self._every
            if changes:
                return changes

    async def _changes(self) -> PresenceChanges:
        events, lost = self._latest.take()
        if not lost:
            return self._apply(events)
        try:
            after = await self._read_again()
        except BaseException:
            self._latest.lose()  # the waiting task was cancelled: the next one reads
            raise
        before, self._members = self._members, after
        return PresenceChanges(
            joined=tuple(one for id, one in after.items() if id not in before),
            updated=tuple(one for id, one in after.items() if not _same(before.get(id, one), one)),
            left=tuple(one for id, one in before.items() if id not in after),
            lost=True,
        )

    def _apply(self, events: list[MemberEvent]) -> PresenceChanges:
        joined: list[Member] = []
        updated: list[Member] = []
        left: list[Member] = []
        for event in events:
            before = self._members.get(event.id)
            if event.event == "leave":
                if before is not None:
                    left.append(self._members.pop(event.id))
                continue
            member = Member(event.id, event.node, event.user, event.info)
            if before is None or not _same(before, member):
                (joined if before is None else updated).append(member)
                self._members[event.id] = member
        return PresenceChanges(tuple(joined), tuple(updated), tuple(left))

    async def _read_all(self) -> dict[str, Member]:
        return {member.id: member async for member in self._read()}

    async def _read_again(self) -> dict[str, Member]:
        while True:
            try:
                return await self._read_all()
            except BackplaneUnavailableError:
                await asyncio.sleep(AGAIN)


def _same(one: Member, other: Member) -> bool:
    """Whether nothing has changed, also where Python calls other JSON equal, as 0 and false."""
    return one == other and repr(one.info) == repr(other.info)
