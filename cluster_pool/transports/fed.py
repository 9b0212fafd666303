"""Takes the place of the queue of events in our protocol of uvicorn.

Every event comes here in the turn of the loop in which its bytes were read: the reader that waits
is woken at once, and a batch of messages is read without further turns. There is no task.
"""

import asyncio
from typing import Any, Final, Protocol

from cluster_pool.core.closing import ABNORMAL
from cluster_pool.transports.base import Ahead
from cluster_pool.transports.kept import DISCONNECT, MESSAGE, Event, Kept

NO_STATUS: Final = 1005
"""The code of an end whose reason uvicorn does not look up, and of a Close that has none."""


class Feeder(Protocol):
    """A protocol of uvicorn, as far as it is needed here."""

    @property
    def conn(self) -> Any:
        """The state of the WebSocket: a protocol of ``websockets``."""

    async def receive(self) -> Any:
        """ASGI's."""

    def pause_reading(self) -> None:
        """Give no further messages: there is no room."""

    def resume_reading(self) -> None:
        """There is room again."""

    def detach(self) -> None:
        """Take further events itself."""


class Fed(Kept):
    """Keeps the events that are put into it.

    Args:
        feeder: reading from its socket stops when there is no room.
        ahead: the limits.

    Attributes:
        received: how many messages came so far.
        closing: whether a disconnect that comes now only repeats a close of our own.
        closed: whether such a close was written.
    """

    __slots__ = ("_before", "_feeder", "_patience", "closed", "closing", "received")

    def __init__(self, feeder: Feeder, ahead: Ahead) -> None:
        super().__init__(feeder.receive, ahead)
        self._feeder = feeder
        self._patience: asyncio.TimerHandle | None = None
        """Runs while reading is stopped."""
        self._before = 0
        self.received = 0
        self.closing = self.closed = False

    # -- as a queue ------------------------------------------------------------------------

    def put_nowait(self, event: Event) -> None:
        """An event came."""
        kind = event["type"]
        if kind == DISCONNECT:
            if not self.closing:
                self._end(event)
            return
        self.received += kind == MESSAGE
        if not self._keep(event) and self._patience is None and self.over is None:
            self._feeder.pause_reading()
            self._wait()

    def read_to_the_answer(self) -> None:
        """A close of ours was written: read on, also without a reader, to notice its answer."""
        self.read = False
        self._read_on()

    def empty(self) -> bool:
        """Whether no event waits."""
        return not self._events

    async def get(self) -> Event:
        """See :meth:`next`."""
        return await self.next()

    # -- reading ---------------------------------------------------------------------------

    def _end(self, event: Event) -> None:
        code, reason = event.get("code") or ABNORMAL, event.get("reason") or ""
        if code == NO_STATUS:
            close = self._feeder.conn.close_rcvd
            code, reason = (ABNORMAL, "") if close is None else (int(close.code), close.reason)
        self._finish(code, reason)

    def _wait(self) -> None:
        self._before = self._held
        loop = asyncio.get_running_loop()
        self._patience = loop.call_later(self._ahead.patience, self._look)

    def _look(self) -> None:
        """Time is up: go on waiting if something was read, else read and drop."""
        if self._held != self._before:
            self._wait()
            return
        self.read = False
        self._read_on()

    def _pop(self) -> Event:
        event = super()._pop()
        if self._patience is not None and self._has_space():
            self._read_on()
        return event

    def _finish(self, code: int, reason: str) -> None:
        super()._finish(code, reason)
        self._read_on()

    async def _stop(self) -> None:
        await super()._stop()
        self._read_on()
        self._feeder.detach()

    def _read_on(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
            self._feeder.resume_reading()
