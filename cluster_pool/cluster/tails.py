"""The ends of histories, read once for all connections that come back at the same time."""

import asyncio
from bisect import bisect_right
from functools import partial
from time import monotonic
from typing import Any, Final, NamedTuple

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.calls import deadline_in, ending_at, unheeded
from cluster_pool.backplane.histories import Histories
from cluster_pool.cluster.dispatcher import Turn, message_of
from cluster_pool.cluster.histories import HistoryReading
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.history import (
    NOBODY,
    NOWHERE,
    Position,
)
from cluster_pool.core.message import Outgoing
from cluster_pool.core.past import Reader, broadcast_for, leaves_out, outgoing_of

AT_ONCE: Final = 16
"""Histories that are read at the same time."""


class Past(NamedTuple):
    """One message of a history.

    Attributes:
        item: the broadcast; or, if it is targeted, the id and its reader.
        targeted: whether it is.
    """

    number: int
    message: Outgoing
    item: list[Any]
    targeted: bool

    def is_for(self, reader: Reader) -> bool:
        """Whether a reader gets it."""
        if self.targeted:
            id, word = self.item[:2]
            return bool(id == reader.id and word == reader.word != NOBODY)
        return not leaves_out(reader, self.item)


class Tail:
    """The messages of a history from a position on.

    Attributes:
        floor: the position of the last message.
        begins: the number before the first message that it has; behind it none is missing.
    """

    def __init__(self, floor: Position, begins: int, past: list[Past]) -> None:
        self.floor = floor
        self.begins = begins
        self._past = past
        self._numbers = [one.number for one in past]

    def after(self, since: Position, reader: Reader) -> list[Outgoing] | None:
        """The messages for a reader behind a position; None if one of them may be missing."""
        number, floor = since.number, self.floor
        if since.epoch != floor.epoch or not self.begins <= number <= floor.number:
            return None
        missed = self._past[bisect_right(self._numbers, number) :]
        return [one.message for one in missed if one.is_for(reader)]


class Tails:
    """Reads the ends of histories.

    Those who come while one is read share the next reading: what the first may have missed was
    published before it ended.
    """

    def __init__(self, backplane: Backplane, reading: HistoryReading) -> None:
        self._histories: Histories = backplane.histories
        self._topology = backplane.topology
        self._timeout = backplane.setup.timing.timeout
        self._reading = reading
        self._room = asyncio.Semaphore(AT_ONCE)
        self._next: dict[str, _Reading] = {}
        self._latest: dict[str, asyncio.Task[Tail]] = {}

    async def read(self, namespace: str, since: Position, deadline: float) -> Tail:
        """Read all that the history has behind a position, or more.

        Raises BackplaneUnavailableError when Redis did not answer in time.
        """
        reading = self._next.get(namespace)
        if reading is None:
            reading = self._next[namespace] = _Reading(since.number)
            before = self._latest.get(namespace)
            reading.task = asyncio.create_task(self._read(namespace, reading, before))
            self._latest[namespace] = reading.task
            reading.task.add_done_callback(partial(self._forget, namespace))
        reading.start = min(reading.start, since.number)
        async with ending_at(deadline, self._topology.of(namespace).in_vain):
            return await asyncio.shield(reading.task)

    async def stop(self) -> None:
        """Wait for the readings; they end with the links to Redis."""
        await asyncio.gather(*self._latest.values(), return_exceptions=True)

    def _forget(self, namespace: str, task: asyncio.Task[Tail]) -> None:
        unheeded(task)  # all who wait may have given up
        if self._latest.get(namespace) is task:
            del self._latest[namespace]

    async def _read(
        self, namespace: str, reading: "_Reading", before: asyncio.Task[Tail] | None
    ) -> Tail:
        try:
            if before is not None:
                await asyncio.wait((before,))
            await self._room.acquire()
        finally:
            del self._next[namespace]  # who comes from now on needs a later one
        try:
            return await self._tail(namespace, reading.start)
        finally:
            self._room.release()

    async def _tail(self, namespace: str, start: int) -> Tail:
        floor, newest = NOWHERE, dict[str, int]()
        begins = reached = start
        past: list[Past] = []
        place, turn = Position("", start), Turn()
        async for page in self._histories.after(namespace, place, deadline_in(self._timeout)):
            if page.position.epoch != floor.epoch:  # the first page, or it has begun anew
                begins, past = start, []
            floor = page.position
            for entry in page.entries:
                if monotonic() >= turn.ends:
                    await turn.yield_now()
                first, last = entry.places
                if first > reached:  # something has left it
                    begins, past = first, []
                reached = last
                for position, item in self._reading.opened(namespace, entry, newest):
                    message = _message(namespace, position, item, entry.targeted)
                    if message is not None:
                        past.append(Past(position.number, message, item, entry.targeted))
        if reached < floor.number:  # what lies between them has left it
            begins, past = floor.number, []
        return Tail(floor, begins, past)


def _message(
    namespace: str, position: Position, item: list[Any], targeted: bool
) -> Outgoing | None:
    """The message of an item; None if it is none, or is broken."""
    try:
        if targeted:
            id, _, (kind, space, named, payload, *_) = item
            ours = (space, named) == (namespace, id)
            return message_of(kind, payload, (namespace, *position)) if ours else None
        found = broadcast_for(Reader(), item)
    except (BrokenEnvelopeError, ValueError, TypeError):
        return None
    return None if found is None else outgoing_of(namespace, position, found)


class _Reading:
    """A reading that has not begun.

    Attributes:
        start: the number behind which it begins.
    """

    __slots__ = ("start", "task")

    task: asyncio.Task[Tail]

    def __init__(self, start: int) -> None:
        self.start = start
