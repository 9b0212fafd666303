"""From stopped to running and back: one start and one stop at a time, of which the stop wins.

Owns the two tasks in which something begins and ends, so that neither is left half-way when its
caller is cancelled. It knows nothing of what begins and ends.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from cluster_pool.exceptions import PoolClosedError
from cluster_pool.loops import check_loop, running_loop

Work = Callable[[], Coroutine[Any, Any, None]]


class Life:
    """The life of one pool or publisher; it may begin again after its end.

    Args:
        end: ends what ``begin`` of :meth:`start` has made, also when that failed or was cancelled
            half-way. It runs alone, once for each begin, and is never cancelled.
    """

    def __init__(self, end: Work) -> None:
        self._end = end
        self._beginning: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._waiting = 0
        self._up = False
        self._process = 0

    @property
    def lost(self) -> bool:
        """Whether it can be ended no more: its event loop is closed, or another process's."""
        return self._beginning is not None and (
            self._process != os.getpid() or self._beginning.get_loop().is_closed()
        )

    async def start(self, begin: Work) -> None:
        """Begin, or wait for the begin that is under way; return at once if it is up.

        Cancelled, it ends what has begun, unless another call waits for it too.

        Args:
            begin: makes whatever ``end`` needs before it returns its coroutine.

        Raises:
            PoolClosedError: it is being stopped, or was stopped before it was up.
            WrongLoopError: it was started in another event loop.
            What ``begin`` raises; then nothing of it is left.
        """
        beginning = self._begun(begin)
        if not self._up:
            await self._wait_for(beginning)

    def _begun(self, begin: Work) -> asyncio.Task[None]:
        loop = running_loop()
        if self._beginning is None or self.lost:
            self._beginning = loop.create_task(begin(), name="cluster_pool start")
            self._ending, self._waiting, self._up = None, 0, False
            self._process = os.getpid()
        check_loop(self._beginning.get_loop())
        if self._ending is not None:
            raise PoolClosedError("it is being stopped")
        return self._beginning

    async def _wait_for(self, beginning: asyncio.Task[None]) -> None:
        self._waiting += 1
        try:
            await asyncio.wait((beginning,))
        except asyncio.CancelledError:
            if self._waiting == 1 and not self._up:
                await self._undo(beginning)
            raise
        finally:
            self._waiting -= 1
        failure = None if beginning.cancelled() else beginning.exception()
        if not beginning.cancelled() and failure is None and self._goes_on(beginning):
            self._up = True
            return
        await self._undo(beginning)
        raise failure or PoolClosedError("it was stopped before it was up")

    def _goes_on(self, beginning: asyncio.Task[None]) -> bool:
        return self._beginning is beginning and self._ending is None

    async def _undo(self, beginning: asyncio.Task[None]) -> None:
        """Stop, unless this beginning has been ended already."""
        if self._beginning is beginning:
            await self.stop()

    async def stop(self) -> None:
        """End it, also in the middle of its start. Returns when nothing is left of it.

        A cancelled call leaves the end to itself, and another call waits for it. Nothing happens
        when it was not started.

        Raises:
            WrongLoopError: it was started in another event loop.
            What ``end`` raises.
        """
        if self._beginning is None:
            await asyncio.sleep(0)  # a start that was called before this, and has not run yet, runs
        if self._beginning is None or self.lost:
            return
        check_loop(self._beginning.get_loop())
        if self._ending is None:
            finish = self._finish(self._beginning)
            self._ending = asyncio.create_task(finish, name="cluster_pool stop")
        await asyncio.shield(self._ending)

    async def _finish(self, beginning: asyncio.Task[None]) -> None:
        try:
            if not beginning.done():
                beginning.cancel()
                await asyncio.wait((beginning,))
            if not beginning.cancelled():
                beginning.exception()  # marked as seen: perhaps no caller waits for it any more
            await self._end()
        finally:
            self._beginning = self._ending = None
            self._up = False


async def in_turn(*steps: Callable[[], Awaitable[object]]) -> None:
    """Take every step, one after another, also behind one that failed; raises the first error."""
    failed: Exception | None = None
    for step in steps:
        try:
            await step()
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed
