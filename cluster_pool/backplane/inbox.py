"""The queue of payloads that were heard and not handled yet: in order, bounded in bytes."""

import asyncio
from collections import deque
from time import monotonic
from typing import NamedTuple

EMPTY = 128
"""Bytes that an empty payload counts for."""


class Heard(NamedTuple):
    """One payload. ``items_offset`` is where the items of an envelope begin, 0 for a raw payload.

    ``epoch`` and ``number`` are those of the envelope's last message, of ``messages`` in it;
    ``sender`` is the start of the process that sent it. ``position`` is that of its last message in
    the history of the namespace; 0 if none is recorded. If it was read from there, or had to wait
    for such, it was published from ``earliest`` to ``time``, in ms of Redis; else both are 0.
    It is ``targeted`` if it was read from there and each item is an id, its reader, and what was
    targeted at the id; behind these True, if it was parked, and published to nobody.
    """

    channel: str
    number: int
    payload: bytes
    items_offset: int
    sender: str
    epoch: str = ""
    messages: int = 0
    position: int = 0
    earliest: int = 0
    time: int = 0
    targeted: bool = False

    @property
    def size(self) -> int:
        """The bytes that it counts for."""
        return len(self.payload) or EMPTY


def probe_heard(began: float) -> Heard:
    """A mark behind all that was heard before a probe, which was sent when ``monotonic`` said so.

    It has no channel, and its number are microseconds.
    """
    return Heard("", int(began * 1_000_000), b"", 0, "")


class Inbox:
    """A queue that is bounded in bytes and has one reader."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.popped = 0
        self._queue: deque[Heard] = deque()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        """Clear while one of :meth:`wait_room` or :meth:`passed` waits for it."""
        self._room.set()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, heard: Heard, *, control: bool = False) -> bool:
        """Add one; False when it does not fit and was dropped. For control the limit is doubled."""
        if not self._has_room(heard, self.limit * (1 + control)):
            return False
        self.size += heard.size
        self._queue.append(heard)
        if len(self._queue) == 1:
            self._filled.set()
        return True

    async def wait_room(self, heard: Heard) -> None:
        """Wait until there is room for one that can wait: half of the inbox is free, and what is
        live has the rest. As long as nothing else is awaited, it can be put as control then."""
        while self.size > self.limit // 2 or not self._has_room(heard, 2 * self.limit):
            self._room.clear()
            await self._room.wait()

    def _has_room(self, heard: Heard, limit: int) -> bool:
        return self.size + heard.size <= limit or not self._queue

    async def passed(self) -> None:
        """Wait until all that is in it now has been handled."""
        self.put(probe_heard(monotonic()), control=True)  # behind it, so that its turn tells
        last = self.popped + len(self._queue)
        while self.popped < last:
            self._room.clear()
            await self._room.wait()

    async def wait(self) -> None:
        """Wait until there is something to read."""
        await self._filled.wait()

    def pop(self) -> Heard | None:
        """Remove the oldest and return it, or None when there is nothing."""
        if not self._queue:
            self._filled.clear()
            return None
        heard = self._queue.popleft()
        self.popped += 1
        self.size -= heard.size
        if not self._room.is_set():
            self._room.set()
        return heard
