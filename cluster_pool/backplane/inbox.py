"""What was heard and not yet handed on: bounded in bytes, in order."""

import asyncio
from collections import deque
from typing import NamedTuple

EMPTY = 128
"""Bytes for which a payload counts that has none."""


class Heard(NamedTuple):
    """One payload. The items of an envelope begin at ``items_offset``, which is 0 for what is none.

    ``epoch`` and ``number`` are those of the envelope's last message, ``sender`` the start of who
    sent it.
    """

    channel: str
    number: int
    payload: bytes
    items_offset: int
    sender: str
    epoch: str = ""


class Inbox:
    """A queue, bounded in bytes, of which one reader takes all that is there."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self._queue: deque[Heard] = deque()
        self._filled = asyncio.Event()

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, heard: Heard, *, control: bool = False) -> bool:
        """Add one; False when it does not fit and was dropped. Control has as much room again."""
        size = len(heard.payload) or EMPTY
        if self.size + size > self.limit * (1 + control) and self._queue:
            return False
        self.size += size
        self._queue.append(heard)
        if len(self._queue) == 1:
            self._filled.set()
        return True

    async def wait(self) -> None:
        """Wait until there is something to take."""
        await self._filled.wait()

    def take(self) -> Heard | None:
        """The oldest, or None when there is nothing."""
        if not self._queue:
            self._filled.clear()
            return None
        heard = self._queue.popleft()
        self.size -= len(heard.payload) or EMPTY
        return heard
