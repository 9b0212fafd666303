"""A pair of functions, ``send`` and ``close``, of any library."""

import asyncio
import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from cluster_pool.core.message import Message, Outgoing
from cluster_pool.core.request import Request
from cluster_pool.exceptions import ClusterPoolError
from cluster_pool.transports.base import (
    Ahead,
    Heard,
    Outbox,
    Reading,
    TransportClosed,
    Watcher,
    Writer,
    refusal_close,
)
from cluster_pool.transports.queued import SendQueue


class SendAndClose:
    """Base class of objects whose ``send`` and ``close`` are such a pair."""


class CallablesTransport:
    """``send(message)`` and ``close(code, reason)``, sync or async; it has no reading side.

    Sync functions are called at once, unless an async one is being awaited. Pass messages of the
    client to the connection's ``feed``, and call its ``close`` when the client has gone.
    """

    def __init__(self, send: Callable[..., Any], close: Callable[..., Any]) -> None:
        self._closing: tuple[int, str] | None = None
        self._closed = asyncio.Event()
        self._queue = SendQueue(partial(_send, send), partial(_close, close, self._closed))

    # -- the writing side ------------------------------------------------------------------

    @property
    def writer(self) -> Writer:
        """See :class:`Transport`."""
        return self

    def descriptor(self) -> int:
        """See :class:`Writer`: only the library can send."""
        return -1

    def write(self, outgoing: Outgoing, written: int = 0) -> int:
        """See :class:`Writer`."""
        is_open = self._closing is None and not self._queue.failed
        return self._queue.enqueue(outgoing) if is_open else -1

    def buffered(self) -> int:
        """See :class:`Writer`."""
        return self._queue.queued

    def bytes_written(self) -> int:
        """See :class:`Writer`; it counts messages for which the library's send has returned."""
        return self._queue.sent

    def write_behind(self, outbox: Outbox) -> None:
        """See :class:`Transport`: two functions write nothing by themselves."""

    # -- the handshake and the end ---------------------------------------------------------

    def request(self) -> Request:
        """See :class:`Transport`; two functions have none."""
        return Request()

    def is_answered(self) -> bool:
        """See :class:`Transport`."""
        return True

    def check_sending(self) -> None:
        """See :class:`Transport`."""

    async def accept(self, subprotocol: str | None) -> None:
        """See :class:`Transport`: there is no handshake."""

    async def refuse(self, status: int, text: str) -> None:
        """See :class:`Transport`: close, before the application lets its server cut the socket."""
        self.close(*refusal_close(status, text))
        await self.wait_close_begun()

    def refusal(self, error: ClusterPoolError, status: int, text: str) -> ClusterPoolError:
        """See :class:`Transport`: only the application sees it."""
        return error

    def is_closed(self) -> bool:
        """See :class:`Transport`."""
        return self._closed.is_set() or self._queue.failed

    def close(self, code: int, reason: str) -> None:
        """See :class:`Transport`."""
        if self._closing is None:
            self._closing = (code, reason)
            self._queue.enqueue_close(code, reason)

    def abort(self) -> None:
        """See :class:`Transport`."""
        self._queue.drop()
        self._closed.set()

    async def wait_close_begun(self) -> None:
        """See :class:`Transport`."""
        await self._queue.wait_close_begun()

    async def wait_closed(self) -> None:
        """See :class:`Transport`."""
        await self._closed.wait()

    # -- the missing reading side ----------------------------------------------------------

    def can_read(self) -> bool:
        """See :class:`Transport`."""
        return False

    async def receive(self) -> Message:
        """Wait for the end; messages never come here."""
        await self._closed.wait()
        raise TransportClosed(*(self._closing or ()))

    def ignore_incoming(self) -> None:
        """See :class:`Transport`: there are none."""

    def watch(self, watcher: Watcher, ahead: Ahead) -> None:
        """See :class:`Transport`: two functions cannot tell that a client has left."""

    async def unwatch(self, watcher: Watcher) -> None:
        """See :class:`Transport`."""

    def reading(self) -> Reading:
        """See :class:`Transport`."""
        return Reading.UNTOUCHED

    def hears_pongs(self) -> bool:
        """See :class:`Transport`: there are none."""
        return False

    def ping(self, payload: bytes, heard: Heard) -> None:
        """See :class:`Transport`."""

    def close_answer(self) -> int | None:
        """See :class:`Transport`."""
        return None

    def closing_of(self, error: Exception) -> tuple[int, str] | None:
        """See :class:`Transport`: no error asks for a code."""
        return None

    async def alive(self, within: float) -> bool:
        """See :class:`Transport`; there is no ping, so it counts as alive until it is closed."""
        return not self.is_closed()


async def _send(send: Callable[..., Any], outgoing: Outgoing) -> None:
    sent = send(outgoing.message)
    if inspect.isawaitable(sent):
        await sent


async def _close(close: Callable[..., Any], ended: asyncio.Event, code: int, reason: str) -> None:
    try:
        closed = close(code, reason)
        if inspect.isawaitable(closed):
            await closed
    finally:
        ended.set()
