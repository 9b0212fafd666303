"""Reading an ASGI WebSocket ahead of its application, so that a departure is noticed at once.

ASGI tells only a caller of ``receive`` that a client has left, and an application that pushes
or waits calls it late or never. Here one task per WebSocket calls it all the time and keeps what
comes, bounded in bytes, for a later call.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from cluster_pool.core.closing import ABNORMAL
from cluster_pool.transports.base import OVERHEAD, Ahead, Watcher

Event = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Event]]

MESSAGE: Final = "websocket.receive"


class ReadAhead:
    """Takes the place of an ASGI ``receive``; made and ended in one event loop.

    While its bytes are within :class:`Ahead`, all that comes is kept in order. Beyond that it
    depends on who reads. Nobody has yet: what comes further is dropped, so that the beginning is
    kept whole, and the end is noticed. Somebody has: reading stops, and TCP holds the client up;
    who takes nothing for ``Ahead.patience`` seconds then counts as nobody.

    Attributes:
        read: whether there is a reader.
        awaited: whether a message is being waited for at the moment.
        own: whether it is the connection that takes a message now.
        elsewhere: whether messages were taken by others, by the library's own means.
        over: the code and the reason of the end, once it came.
    """

    def __init__(self, receive: Receive, ahead: Ahead) -> None:
        self.receive = receive
        self.read = self.own = self.elsewhere = False
        self.over: tuple[int, str] | None = None
        self._ahead = ahead
        self._watchers: list[Watcher] = []
        self._events: deque[tuple[Event, int]] = deque()
        self._held = 0
        self._told = self._begun = self._ignoring = False
        self._deaf: Event | None = None
        self._failure: Exception | None = None
        self._taker: asyncio.Future[Event] | None = None
        self._space: asyncio.Future[None] | None = None
        self._task = asyncio.create_task(self._run(), name="cluster_pool reads ahead")

    @property
    def awaited(self) -> bool:
        """See the class."""
        return self._taker is not None

    @property
    def unread(self) -> bool:
        """Whether messages wait to be taken."""
        return any(event["type"] == MESSAGE for event, _ in self._events)

    def watch(self, watcher: Watcher) -> None:
        """Tell ``watcher`` of the end, also when it came already."""
        self._watchers.append(watcher)
        if self.over is not None:
            watcher.departed(*self.over)

    async def unwatch(self, watcher: Watcher) -> bool:
        """Tell it nothing more; True when it was the last, and reading has ended."""
        self._watchers.remove(watcher)
        if self._watchers:
            return False
        self._task.cancel()
        self._forget()
        await asyncio.wait((self._task,))
        return True

    async def take(self) -> Event:
        """The event that ASGI's ``receive`` would have given.

        Raises:
            RuntimeError: another coroutine is waiting in here.
        """
        if self._taker is not None:
            raise RuntimeError("the WebSocket is being read by another task already")
        if self._events:
            event = self._pop()
            if event["type"] == MESSAGE:
                self._taken()
            return event
        self._taken()
        if self._deaf is not None:
            return self._deaf
        if self._failure is not None:
            raise self._failure
        taker: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._taker = taker
        try:
            event = await taker
        except asyncio.CancelledError:
            self._take_back(taker)
            raise
        finally:
            self._taker = None
        return event

    def _take_back(self, taker: "asyncio.Future[Event]") -> None:
        """Keep what came in the very turn in which its taker was cancelled."""
        if taker.done() and not taker.cancelled() and taker.exception() is None:
            event = taker.result()
            if event["type"] == MESSAGE and not self._ignoring:
                self._put(event, first=True)

    def accepted(self) -> None:
        """The handshake was answered: waiting for its beginning was no reading."""
        self.read = self.elsewhere = False

    def deafen(self, code: int, reason: str) -> None:
        """Nothing more counts of what the client says: a reader is told of the end."""
        self._ignoring = True
        self._forget()
        if self._deaf is None:
            self._deaf = {"type": "websocket.disconnect", "code": code, "reason": reason}
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(self._deaf)

    def lose(self) -> None:
        """The socket is given up: as if the server had said that it is lost."""
        self._finish(ABNORMAL, "")

    async def _run(self) -> None:
        try:
            while self.over is None:
                event = await self.receive()
                if event["type"] == "websocket.disconnect":
                    self._finish(event.get("code") or ABNORMAL, event.get("reason") or "")
                elif event["type"] != MESSAGE and self._begun:
                    raise RuntimeError(f"ASGI's receive gave {event['type']!r} again")
                elif not self._keep(event):
                    await self._wait_for_space()
                self._begun = True
        except OSError:
            self._finish(ABNORMAL, "")
        except Exception as error:  # the server's, or of an earlier reader: raised to the next one
            self._failure = error
            if self._taker is not None and not self._taker.done():
                self._taker.set_exception(error)

    def _keep(self, event: Event) -> bool:
        """Hand an event over, or keep it, or drop it; False when no more should be read now."""
        if self._ignoring and event["type"] == MESSAGE:
            return True
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(event)
            return True
        fits = self._fits(_size(event))
        if fits or self.read:
            self._put(event)
            return fits
        for watcher in self._watchers:
            watcher.dropped(first=not self._told)
            self._told = True
        return True

    def _fits(self, size: int) -> bool:
        if not self._events:
            return True
        ahead = self._ahead
        return self._held + size <= ahead.one and ahead.held + size <= ahead.all

    async def _wait_for_space(self) -> None:
        """Wait until half of it is free, or nothing was taken for too long."""
        before = -1
        while self.over is None and not self._has_space() and before != self._held:
            before = self._held
            self._space = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._space,), timeout=self._ahead.patience)
        self._space = None
        if not self._has_space():
            self.read = False

    def _taken(self) -> None:
        self.read = True
        self.elsewhere = self.elsewhere or not self.own

    def _has_space(self) -> bool:
        return not self._events or (
            self._held * 2 <= self._ahead.one and self._ahead.held <= self._ahead.all
        )

    def _put(self, event: Event, *, first: bool = False) -> None:
        size = _size(event)
        self._held += size
        self._ahead.held += size
        (self._events.appendleft if first else self._events.append)((event, size))

    def _pop(self) -> Event:
        event, size = self._events.popleft()
        self._held -= size
        self._ahead.held -= size
        if self._space is not None and not self._space.done() and self._has_space():
            self._space.set_result(None)
        return event

    def _forget(self) -> None:
        """Drop the messages; the beginning of the handshake is still to be taken."""
        kept = [self._pop() for _ in range(len(self._events))]
        for event in kept:
            if event["type"] != MESSAGE:
                self._put(event)

    def _finish(self, code: int, reason: str) -> None:
        """Tell the reader that waits, and the watchers; what came before is there to be taken."""
        if self.over is not None:
            return
        self.over = code, reason
        event = {"type": "websocket.disconnect", "code": code, "reason": reason}
        self._deaf = self._deaf or event
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(event)
        if self._space is not None and not self._space.done():
            self._space.set_result(None)
        for watcher in list(self._watchers):
            watcher.departed(code, reason)


def _size(event: Event) -> int:
    text = event.get("text")
    return OVERHEAD + len(event.get("bytes") or b"" if text is None else text)
