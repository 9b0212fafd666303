"""Events of one ASGI WebSocket that were received and that its application has not read yet.

Owns their bounds in bytes, the reader that waits for the next one, and the watchers that are told
of the end. :mod:`.ahead` and :mod:`.fed` get the events, and stop reading when there is no room.
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
DISCONNECT: Final = "websocket.disconnect"


class Kept:
    """Replaces an ASGI ``receive``; made and ended in one event loop.

    While its bytes are within the limits of :class:`Ahead`, all messages are kept in order. Beyond
    that it depends on the reader. Without one, further messages are dropped: the first ones are
    kept, and the end is noticed. With one, reading stops, and TCP holds the client up; a reader
    that reads nothing for ``Ahead.patience`` seconds then counts as none.

    Attributes:
        receive: the server's own.
        read: whether there is a reader.
        awaited: whether a caller waits for a message at the moment.
        own: whether the connection itself is reading a message now.
        elsewhere: whether other code has read messages, by the library's own methods.
        over: the code and the reason of the end, once it came.
    """

    __slots__ = (
        *("_ahead", "_deaf", "_events", "_failure", "_held", "_ignoring", "_told", "_waiter"),
        *("_watchers", "elsewhere", "over", "own", "read", "receive"),
    )

    def __init__(self, receive: Receive, ahead: Ahead) -> None:
        self.receive = receive
        self.read = self.own = self.elsewhere = False
        self.over: tuple[int, str] | None = None
        self._ahead = ahead
        self._watchers: list[Watcher] = []
        self._events: deque[tuple[Event, int]] | tuple[()] = ()
        """Made anew for each burst: an empty deque takes 760 bytes."""
        self._held = 0
        self._told = self._ignoring = False
        self._deaf: Event | None = None
        self._failure: Exception | None = None
        self._waiter: asyncio.Future[Event] | None = None

    @property
    def awaited(self) -> bool:
        """See the class."""
        return self._waiter is not None

    @property
    def unread(self) -> bool:
        """Whether messages wait to be read."""
        return any(event["type"] == MESSAGE for event, _ in self._events)

    def watch(self, watcher: Watcher) -> None:
        """Tell ``watcher`` of the end, also when it came already."""
        self._watchers.append(watcher)
        if self.over is not None:
            watcher.client_left(*self.over)

    async def unwatch(self, watcher: Watcher) -> bool:
        """Tell it nothing more; True when it was the last, and reading has ended."""
        self._watchers.remove(watcher)
        if self._watchers:
            return False
        await self._stop()
        return True

    async def _stop(self) -> None:
        """Stop reading, for ever; a reader that waits is told that it has ended."""
        self._forget()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result({"type": DISCONNECT, "code": ABNORMAL, "reason": ""})

    async def next(self) -> Event:
        """The event that ASGI's ``receive`` would have given.

        Raises:
            RuntimeError: another coroutine is waiting in here.
        """
        if self._waiter is not None:
            raise RuntimeError("the WebSocket is being read by another task already")
        if self._events:
            event = self._pop()
            if event["type"] == MESSAGE:
                self._note_reader()
            return event
        self._note_reader()
        if self._deaf is not None:
            return self._deaf
        if self._failure is not None:
            raise self._failure
        waiter: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiter = waiter
        try:
            event = await waiter
        except asyncio.CancelledError:
            self._put_back(waiter)
            raise
        finally:
            self._waiter = None
        return event

    def _put_back(self, waiter: "asyncio.Future[Event]") -> None:
        """Keep the event that came in the same turn in which its reader was cancelled."""
        if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
            event = waiter.result()
            if event["type"] == MESSAGE and not self._ignoring:
                self._put(event, first=True)

    def accepted(self) -> None:
        """The handshake was answered: reads before that were of its first event."""
        self.read = self.elsewhere = False

    def deafen(self, code: int, reason: str) -> None:
        """Ignore all further messages of the client; readers get the end with this code."""
        self._ignoring = True
        self._forget()
        if self._deaf is None:
            self._deaf = {"type": DISCONNECT, "code": code, "reason": reason}
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._deaf)

    def lose(self) -> None:
        """The socket is given up: do as if the server had said that it is lost."""
        self._finish(ABNORMAL, "")

    def _keep(self, event: Event) -> bool:
        """Give an event to the reader that waits, or keep it, or drop it; False to stop reading."""
        if self._ignoring and event["type"] == MESSAGE:
            return True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(event)
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

    def _note_reader(self) -> None:
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
        if not isinstance(self._events, deque):
            self._events = deque()
        (self._events.appendleft if first else self._events.append)((event, size))

    def _pop(self) -> Event:
        assert isinstance(self._events, deque)
        event, size = self._events.popleft()
        self._held -= size
        self._ahead.held -= size
        if not self._events:
            self._events = ()
        return event

    def _forget(self) -> None:
        """Drop the messages; keep the first event of the handshake, which is still to be read."""
        kept = [self._pop() for _ in range(len(self._events))]
        for event in kept:
            if event["type"] != MESSAGE:
                self._put(event)

    def _finish(self, code: int, reason: str) -> None:
        """Tell the reader that waits, and the watchers; earlier messages can still be read."""
        if self.over is not None:
            return
        self.over = code, reason
        event = {"type": DISCONNECT, "code": code, "reason": reason}
        self._deaf = self._deaf or event
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(event)
        for watcher in list(self._watchers):
            watcher.client_left(code, reason)


def _size(event: Event) -> int:
    text = event.get("text")
    return OVERHEAD + len(event.get("bytes") or b"" if text is None else text)
