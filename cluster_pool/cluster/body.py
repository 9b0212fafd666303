"""The body of ``accept``: ends it when its connection is over."""

import asyncio
import contextlib
import logging
from contextvars import ContextVar, Token
from typing import Any

from cluster_pool.core.quiet import others
from cluster_pool.exceptions import ConnectionClosedError
from cluster_pool.local import attachment, closing, reading
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import flush
from cluster_pool.transports.base import Reading

_running: "ContextVar[tuple[Body, ...]]" = ContextVar("cluster_pool_bodies", default=())
"""The bodies that the current code belongs to; tasks that a body makes inherit it."""

log = logging.getLogger("cluster_pool.connection")


class Body:
    """Watches the connection and cancels the body when it is over, as :class:`asyncio.timeout`.

    The body's own iteration ends by itself. A body that is in it, or has finished it, is never
    cancelled: it works on messages that it has read. A body that waits for anything else is
    cancelled: at once, if there are no unread messages; after ``Timing.close``, if there are some
    and they are not read by then; after ``Timing.handler``, if another task reads, or the WebSocket
    is read by its library's own methods, which see the end then. A body that closed the connection
    itself is never cancelled.
    """

    __slots__ = (
        *("_cancelled", "_cancelling", "_connection", "_elsewhere", "_ended", "_knows", "_mates"),
        *("_read_out", "_reads", "_task", "_timer", "_token"),
    )

    def __init__(self, connection: Connection) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._connection = connection
        self._reads = 0
        self._read_out = self._elsewhere = self._knows = False
        self._cancelled = self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._token: Token[tuple[Body, ...]] | None = None
        self._mates: list[Body] = [self]
        """The bodies of one WebSocket in several contexts: a read in one counts for all."""

    def begin(self) -> None:
        """The body runs from here on, and is ended when the connection is over."""
        outer = _running.get()
        self._token = _running.set((*outer, self))
        for one in outer:
            if one._connection.websocket is self._connection.websocket and not one._ended:
                self._mates = one._mates
                self._mates.append(self)
                break
        attachment.set_owner(self._connection, self)

    # -- events of the connection ----------------------------------------------------------

    def client_left(self, code: int, reason: str) -> None:
        """See :class:`Watcher`."""
        closing.client_left(self._connection, code, reason)

    def dropped(self, *, first: bool) -> None:
        """See :class:`Watcher`."""
        services = attachment.services_of(self._connection)
        services.counters.inbound_dropped += 1
        if first and (times := services.quiet.due("dropped", asyncio.get_running_loop().time())):
            log.warning(
                "nobody reads what the client of %r sends: its messages are dropped%s",
                self._connection,
                others(times),
            )
        reading.count_dropped(self._connection)

    def write_pending(self) -> None:
        """See :class:`Watcher`."""
        flush(self._connection)

    def reading_begins(self) -> None:
        """A task begins to iterate over the connection."""
        if asyncio.current_task() is self._task:
            self._reads += 1
        else:
            self._elsewhere = True

    def reading_ends(self, task: "asyncio.Task[Any] | None", *, finished: bool) -> None:
        """The iteration that ``task`` began has ended, at the end of the client or before."""
        if task is self._task:
            self._reads -= 1
            self._read_out = self._read_out or finished
            self._tell_mates()

    def _tell_mates(self) -> None:
        for one in list(self._mates):
            if closing.is_over(one._connection):
                one.over()

    def calls(self) -> bool:
        """See :class:`Owner`."""
        return self in _running.get()

    def closing(self) -> None:
        """The current task closes the connection; if it is the body, it is not cancelled for it."""
        self._knows = self._knows or asyncio.current_task() is self._task

    def over(self) -> None:
        """The client has left, or its messages are ignored from now on."""
        self._stop_timer()
        if self._stays():
            return
        reads = reading.reading(self._connection)
        timing = attachment.services_of(self._connection).timing
        if self._elsewhere or reads in (Reading.ELSEWHERE, Reading.WAITED):
            self._cancel_after(timing.handler)
        elif reads is Reading.UNREAD and not closing.is_silenced(self._connection):
            self._cancel_after(timing.close)
        elif asyncio.current_task() is self._task:
            asyncio.get_running_loop().call_soon(self._cancel)  # it may end before its next await
        else:
            self._cancel()

    def _stays(self) -> bool:
        reads = any(one._reads or one._read_out for one in self._mates)
        return self._ended or self._cancelled or self._knows or reads

    def _cancel_after(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._cancel)

    def _cancel(self) -> None:
        if not self._stays():
            self._cancelled = True
            self._task.cancel()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- the end of the body ---------------------------------------------------------------

    def end(self, error: BaseException | None) -> bool:
        """The body has ended with ``error``; True if only the end of its connection caused that.

        A cancellation from outside never counts as ours, even if both come together.
        """
        self._ended = True
        attachment.set_owner(self._connection, None)
        self._stop_timer()
        if self._token is not None:
            with contextlib.suppress(ValueError):  # ended in another context than it began in
                _running.reset(self._token)
        if self._cancelled and self._task.uncancel() > self._cancelling:
            return False
        if isinstance(error, asyncio.CancelledError):
            return self._cancelled
        return error is not None and self._is_own(error)

    def release_mates(self) -> None:
        """Its whole context has ended: an outer one of the same WebSocket may end now."""
        if self in self._mates:
            self._mates.remove(self)
        self._tell_mates()

    def _is_own(self, error: BaseException) -> bool:
        """Whether an error only says that this connection is over."""
        if isinstance(error, BaseExceptionGroup):
            return all(self._is_own(one) for one in error.exceptions)
        return isinstance(error, ConnectionClosedError) and error.connection is self._connection
