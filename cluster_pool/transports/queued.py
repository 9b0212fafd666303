"""Sending where a library's send is awaited: one queue, and one task while it is not empty."""

import asyncio
import logging
from collections import deque
from typing import Final

from cluster_pool.core.message import Outgoing
from cluster_pool.exceptions import ClusterPoolError
from cluster_pool.transports.base import Ahead, Reading, Watcher

HANDED_OVER: Final = 0.25
"""Seconds after which a Close is taken for written, where the library's close waits for more."""

log = logging.getLogger("cluster_pool.transports")


class SendQueue:
    """Sends in order, in a task that exists only while there is something to send.

    Subclasses give ``_send_now`` and ``_close_now``. An error of either ends the queue: what is
    left is dropped and ``failed`` is true.
    """

    __slots__ = ("_begun", "_queue", "_queued", "_sent", "_task", "failed")

    def __init__(self) -> None:
        self._queue: deque[Outgoing | tuple[int, str]] | None = None
        self._queued = 0
        self._sent = 0
        self._task: asyncio.Task[None] | None = None
        self._begun: asyncio.Future[None] | None = None
        """Whether the library was told to close; there once that is in the queue."""
        self.failed = False

    def ignore_incoming(self) -> None:
        """See :class:`Transport`: what comes is with the server below, or never was here."""

    def watch(self, watcher: Watcher, ahead: Ahead) -> None:
        """See :class:`Transport`: here nobody tells."""

    async def unwatch(self, watcher: Watcher) -> None:
        """See :class:`Transport`."""

    def reading(self) -> Reading:
        """See :class:`Transport`."""
        return Reading.UNTOUCHED

    def check_sending(self) -> None:
        """See :class:`Transport`."""

    def can_read(self) -> bool:
        """See :class:`Transport`."""
        return True

    def refusal(self, error: ClusterPoolError, status: int, text: str) -> ClusterPoolError:
        """See :class:`Transport`: here nobody but the application sees it."""
        return error

    def descriptor(self) -> int:
        """See :class:`Transport`: here the library alone knows how to send."""
        return -1

    async def _send_now(self, outgoing: Outgoing) -> None:
        raise NotImplementedError  # each transport knows its own library

    async def _close_now(self, code: int, reason: str) -> None:
        raise NotImplementedError  # the same

    def _awaits_answer(self) -> bool:
        """Whether ``_close_now`` may wait for the client's answer, and not only for the write."""
        return True

    def enqueue(self, outgoing: Outgoing) -> int:
        """Send this after what is queued; gives the bytes that are queued then."""
        for part in outgoing.parts:
            self._queued += part.size
            self._put(part)
        return self._queued

    def enqueue_close(self, code: int, reason: str) -> None:
        """Close after what is queued."""
        if not self.failed:
            self._begun = asyncio.get_running_loop().create_future()
            self._put((code, reason))

    async def wait_close_begun(self) -> None:
        """See :class:`Transport`."""
        if self._begun is not None:
            await asyncio.shield(self._begun)

    async def wait_sent(self) -> None:
        """Wait until nothing is queued or being sent."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    def drop(self) -> None:
        """Send nothing more."""
        self.failed = True
        if self._task is not None:
            self._task.cancel()
            self._end_queue()  # a task that is cancelled before its first step does not get there

    def _put(self, item: Outgoing | tuple[int, str]) -> None:
        if self.failed:
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(item)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._queue:
                item = self._queue.popleft()
                if isinstance(item, tuple):
                    if self._awaits_answer():
                        asyncio.get_running_loop().call_later(HANDED_OVER, self._tell_begun)
                    await self._close_now(*item)
                else:
                    await self._send_now(item)
                    self._queued -= item.size
                    self._sent += item.size
        except Exception as error:
            self.failed = True
            log.debug("send failed: %r", error)
        finally:
            self._end_queue()

    def _end_queue(self) -> None:
        self._task = self._queue = None
        self._queued = 0
        self._tell_begun()

    def _tell_begun(self) -> None:
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
