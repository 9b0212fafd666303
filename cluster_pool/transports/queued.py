"""Sends by a library whose send is awaited: one queue, and one task while it is not empty.

A send that is known to need no task is begun at once, and gets one only if it waits.
"""

import asyncio
import logging
import types
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final

from cluster_pool.core.message import Outgoing

HANDED_OVER: Final = 0.25
"""Seconds after which a Close counts as written, if the library's close waits for the answer."""

log = logging.getLogger("cluster_pool.transports")


Queued = Outgoing | tuple[int, str] | Callable[[], None]
"""A message, a close, or a call."""


def always() -> bool:
    """The ``awaits_answer`` of a library whose close always waits for the client's answer."""
    return True


@types.coroutine
def resumed(begun: Coroutine[Any, Any, None], waits: Any) -> Generator[Any, Any, None]:
    """Go on, in a task, with a send that was begun outside of one and waits for a future."""
    while True:
        failure = result = None
        try:
            result = yield waits
        except BaseException as error:
            failure = error
        try:
            waits = begun.send(result) if failure is None else begun.throw(failure)
        except StopIteration:
            return


class SendQueue:
    """Sends in order, in a task that exists only while there is something to send.

    An error of a library's call ends the queue: the rest is dropped, and ``failed`` is true.

    Args:
        send: sends a single message by the library.
        close: closes by the library.
        awaits_answer: called before ``close``: whether that may wait for the client's answer, and
            not only for the write.
        steps: whether ``send`` gives a coroutine that may be begun outside of a task.

    Attributes:
        failed: whether nothing is sent any more.
        queued: bytes that wait here, or are being sent.
        sent: bytes for which ``send`` has returned.
    """

    __slots__ = (
        *("_awaits_answer", "_begun", "_close", "_queue", "_send", "_steps", "_task"),
        *("failed", "queued", "sent"),
    )

    def __init__(
        self,
        send: Callable[[Outgoing], Awaitable[None]],
        close: Callable[[int, str], Awaitable[None]],
        awaits_answer: Callable[[], bool] = always,
        *,
        steps: bool = False,
    ) -> None:
        self._send = send
        self._close = close
        self._awaits_answer = awaits_answer
        self._steps = steps
        self._queue: deque[Queued] | None = None
        self._task: asyncio.Task[None] | None = None
        self._begun: asyncio.Future[None] | None = None
        """Done once the library was told to close; made when that is queued."""
        self.failed = False
        self.queued = 0
        self.sent = 0

    @property
    def busy(self) -> bool:
        """Whether something is queued or being sent."""
        return self._task is not None

    def enqueue(self, outgoing: Outgoing) -> int:
        """Send this after what is queued; returns the bytes that are queued then."""
        for part in outgoing.parts:
            if self._steps and self._task is None and not self.failed:
                self._step(part)
            else:
                self.queued += part.size
                self._put(part)
        return self.queued

    def enqueue_close(self, code: int, reason: str) -> None:
        """Close after what is queued."""
        if not self.failed:
            self._begun = asyncio.get_running_loop().create_future()
            self._put((code, reason))

    def enqueue_call(self, call: Callable[[], None]) -> None:
        """Call this after what is queued, if all of that was sent."""
        self._put(call)

    async def wait_close_begun(self) -> None:
        """Wait until the library was told to close, or cannot be told any more."""
        if self._begun is not None:
            await asyncio.shield(self._begun)

    def is_sending_here(self) -> bool:
        """Whether the current task is the one of the queue."""
        return self._task is not None and self._task is asyncio.current_task()

    async def wait_turn(self) -> None:
        """Wait until what is queued now was sent, or nothing is sent any more."""
        if self._task is None:
            return
        turn = asyncio.get_running_loop().create_future()
        self.enqueue_call(lambda: None if turn.done() else turn.set_result(None))
        await asyncio.wait((turn, self._task), return_when=asyncio.FIRST_COMPLETED)

    async def wait_sent(self) -> None:
        """Wait until nothing is queued or being sent."""
        while self._task is not None:
            await asyncio.wait((self._task,))

    def drop(self) -> None:
        """Send nothing more."""
        self.failed = True
        if self._task is not None:
            self._task.cancel()
            self._end()  # a task that is cancelled before its first step does not call this

    def _put(self, item: Queued) -> None:
        if self.failed:
            return
        if self._queue is None:
            self._queue = deque()
        self._queue.append(item)
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    def _step(self, item: Outgoing) -> None:
        """Begin to send, and make a task if that waits."""
        sending: Any = self._send(item)
        try:
            waits = sending.send(None)
        except StopIteration:
            self.sent += item.size
        except Exception as error:
            self.failed = True
            log.debug("send failed: %r", error)
        else:
            self.queued += item.size
            self._task = asyncio.create_task(self._run((item, resumed(sending, waits))))

    async def _run(self, begun: tuple[Outgoing, Awaitable[None]] | None = None) -> None:
        """Send what is queued, behind the rest of a send that was begun."""
        try:
            if begun is not None:
                first, rest = begun
                await rest
                self.queued -= first.size
                self.sent += first.size
            while self._queue:
                item = self._queue.popleft()
                if isinstance(item, tuple):
                    if self._awaits_answer():
                        asyncio.get_running_loop().call_later(HANDED_OVER, self._tell_begun)
                    await self._close(*item)
                elif not isinstance(item, Outgoing):
                    item()
                else:
                    await self._send(item)
                    self.queued -= item.size
                    self.sent += item.size
        except Exception as error:
            self.failed = True
            log.debug("send failed: %r", error)
        finally:
            self._end()

    def _end(self) -> None:
        self._task = self._queue = None
        self.queued = 0
        self._tell_begun()

    def _tell_begun(self) -> None:
        if self._begun is not None and not self._begun.done():
            self._begun.set_result(None)
