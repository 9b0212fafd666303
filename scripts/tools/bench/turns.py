"""The longest turn of a program's event loop, in CPU time, which other programs do not lengthen."""

import asyncio
import time


class Turns:
    """Watches the loop from the first call of :meth:`longest` on."""

    def __init__(self) -> None:
        self._watch: asyncio.Task[None] | None = None
        self._longest = 0.0

    async def longest(self) -> float:
        """Seconds of CPU of the longest turn since the last call."""
        if self._watch is None:
            self._watch = asyncio.create_task(self._look())
        longest, self._longest = self._longest, 0.0
        return longest

    async def _look(self) -> None:
        while True:
            begun = time.thread_time()
            await asyncio.sleep(0.001)
            self._longest = max(self._longest, time.thread_time() - begun)
