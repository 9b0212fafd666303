"""Reads an ASGI WebSocket ahead of its application, so that the end of a client is noticed at once.

ASGI tells only a caller of ``receive`` that a client has gone, and an application that pushes or
waits calls it late or never. Here one task per WebSocket calls it all the time, and keeps the
events, bounded in bytes, for later calls.
"""

import asyncio

from cluster_pool.core.closing import ABNORMAL
from cluster_pool.transports.base import Ahead
from cluster_pool.transports.kept import DISCONNECT, MESSAGE, Event, Kept, Receive


class ReadAhead(Kept):
    """Calls ``receive`` in a task, and keeps what it gives."""

    __slots__ = ("_begun", "_space", "_task")

    def __init__(self, receive: Receive, ahead: Ahead) -> None:
        super().__init__(receive, ahead)
        self._begun = False
        self._space: asyncio.Future[None] | None = None
        self._task = asyncio.create_task(self._run(), name="cluster_pool reads ahead")

    async def _stop(self) -> None:
        self._task.cancel()
        await super()._stop()
        await asyncio.wait((self._task,))

    async def _run(self) -> None:
        try:
            while self.over is None:
                event = await self.receive()
                if event["type"] == DISCONNECT:
                    self._finish(event.get("code") or ABNORMAL, event.get("reason") or "")
                elif event["type"] != MESSAGE and self._begun:
                    raise RuntimeError(f"ASGI's receive gave {event['type']!r} again")
                elif not self._keep(event):
                    await self._wait_for_space()
                self._begun = True
        except OSError:
            self._finish(ABNORMAL, "")
        except Exception as error:  # of the server or an earlier reader: raised at the next read
            self._failure = error
            if self._waiter is not None and not self._waiter.done():
                self._waiter.set_exception(error)

    async def _wait_for_space(self) -> None:
        """Wait until half of the space is free, or nothing was read for too long."""
        before = -1
        while self.over is None and not self._has_space() and before != self._held:
            before = self._held
            self._space = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._space,), timeout=self._ahead.patience)
        self._space = None
        if not self._has_space():
            self.read = False

    def _pop(self) -> Event:
        event = super()._pop()
        if self._space is not None and self._has_space():
            self._read_on()
        return event

    def _finish(self, code: int, reason: str) -> None:
        super()._finish(code, reason)
        self._read_on()

    def _read_on(self) -> None:
        if self._space is not None and not self._space.done():
            self._space.set_result(None)
