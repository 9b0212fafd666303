"""Start and stop of a pool or publisher: one of each at a time; a stop ends a start.

Owns the two tasks that start and stop it, so that neither stops half-way when its caller is
cancelled. It knows nothing of what is started.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from cluster_pool.exceptions import PoolClosedError
from cluster_pool.loops import check_loop, running_loop

Work = Callable[[], Coroutine[Any, Any, None]]


class Life:
    """The life of one pool or publisher; it may be started again after a stop.

    Args:
        end: ends what ``begin`` of :meth:`start` has made, also when that failed or was cancelled
            half-way. It runs once for each begin, never beside it, and is never cancelled.
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
        """Whether it cannot be stopped any more: its loop is closed, or was forked from another
        process."""
        return self._beginning is not None and (
            self._process != os.getpid() or self._beginning.get_loop().is_closed()
        )

    async def start(self, begin: Work) -> None:
        """Start, or wait for the start that is under way; return at once if it is up.

        A cancelled call stops what has begun, unless another call waits for it, too.

        Args:
            begin: makes all that ``end`` needs before it returns its coroutine.

        Raises:
            PoolClosedError: it is being stopped, or was stopped before it was up.
            WrongLoopError: it was started in another event loop.
            Errors of ``begin``, after it was undone.
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
        """Stop, unless this start was ended already."""
        if self._beginning is beginning:
            await self.stop()

    async def stop(self) -> None:
        """Stop it, also in the middle of its start. Returns when it has ended.

        If this call is cancelled, the stop goes on, and another call waits for it. Nothing happens
        when it was not started.

        Raises:
            WrongLoopError: it was started in another event loop.
            Errors of ``end``.
        """
        if self._beginning is None:
            await asyncio.sleep(0)  # let an earlier call of start run, which has not begun yet
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
                beginning.exception()  # read here, so that asyncio does not log it
            await self._end()
        finally:
            self._beginning = self._ending = None
            self._up = False


async def in_turn(*steps: Callable[[], Awaitable[object]]) -> None:
    """Run every step, one after another, even after one that failed; raises the first error."""
    failed: Exception | None = None
    for step in steps:
        try:
            await step()
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed
