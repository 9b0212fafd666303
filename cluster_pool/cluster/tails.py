"""The ends of histories, read once for all connections that come back at the same time."""

import asyncio
from functools import partial
from typing import Any, Final, NamedTuple

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.calls import deadline_in, ending_at
from cluster_pool.backplane.histories import Histories
from cluster_pool.cluster.histories import HistoryReading
from cluster_pool.core import envelope
from cluster_pool.core.config import COUNTLESS
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.history import NOWHERE, Position, Reader, broadcast_for
from cluster_pool.core.message import Outgoing, PublishedMessage, encode

AT_ONCE: Final = 16
"""Histories that are read at the same time."""


class Past(NamedTuple):
    """One item of a history, and the message in it for those whom it does not leave out."""

    number: int
    item: list[Any]
    message: Outgoing | None


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

    def after(self, since: Position, reader: Reader) -> list[Outgoing] | None:
        """The messages for a reader behind a position; None if one of them may be missing."""
        number, floor = since.number, self.floor
        if since.epoch != floor.epoch or not self.begins <= number <= floor.number:
            return None
        return [
            one.message
            for one in self._past
            if one.message is not None and one.number > number and _is_for(reader, one.item)
        ]


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

    def _forget(self, namespace: str, task: asyncio.Task[Tail]) -> None:
        if self._latest.get(namespace) is task:
            del self._latest[namespace]

    async def _read(
        self, namespace: str, reading: "_Reading", before: asyncio.Task[Tail] | None
    ) -> Tail:
        if before is not None:
            await asyncio.wait((before,))
        async with self._room:
            del self._next[namespace]
            return await self._tail(namespace, reading.start)

    async def _tail(self, namespace: str, start: int) -> Tail:
        floor, newest = NOWHERE, dict[str, int]()
        begins = reached = start
        past: list[Past] = []
        place = Position("", start)
        async for page in self._histories.after(namespace, place, deadline_in(self._timeout)):
            if page.position.epoch != floor.epoch:  # the first page, or it has begun anew
                begins, past = start, []
            floor = page.position
            for entry in page.entries:
                first, last = entry.places
                if first > reached:  # something has left it
                    begins, past = first, []
                reached = last
                for position, item in self._reading.opened(namespace, entry, newest):
                    past.append(Past(position.number, item, _message(namespace, position, item)))
        if reached < floor.number:  # what lies between them has left it
            begins, past = floor.number, []
        return Tail(floor, begins, past)


def _message(namespace: str, position: Position, item: list[Any]) -> Outgoing | None:
    """The message of an item; None if it is none."""
    try:
        found = broadcast_for(Reader(), item)
    except BrokenEnvelopeError:
        return None
    if found is None:
        return None
    encoded = encode(found.message, COUNTLESS)
    source = (namespace, position.epoch, position.number)
    if found.id:
        return PublishedMessage(*encoded, source, (found.id, found.user))
    return Outgoing(*encoded, source)


def _is_for(reader: Reader, item: list[Any]) -> bool:
    """Whether a broadcast does not leave a reader out."""
    kind = item[0]
    if kind in envelope.FROM.values():
        return True
    return reader.id not in item[2] and (
        kind not in envelope.EXCEPT.values() or reader.user not in item[3]
    )


class _Reading:
    """A reading that has not begun.

    Attributes:
        start: the number behind which it begins.
    """

    __slots__ = ("start", "task")

    task: asyncio.Task[Tail]

    def __init__(self, start: int) -> None:
        self.start = start
