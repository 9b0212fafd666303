"""A pair of functions, ``send`` and ``close``, of whatever library."""

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
    Reading,
    TransportClosed,
    Watcher,
    Writer,
    refusal_close,
)
from cluster_pool.transports.queued import SendQueue


class SendAndClose:
    """Base class of an object whose ``send`` and ``close`` are such a pair."""


class CallablesTransport:
    """``send(message)`` and ``close(code, reason)``, sync or async; it has no reading side.

    Sync functions are called at once, so long as nothing async is being awaited. What the client
    sends is handed to the connection with ``feed``; that it has gone, with ``close``.
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
        """See :class:`Writer`: the library alone knows how to send."""
        return -1

    def write(self, outgoing: Outgoing, written: int = 0) -> int:
        """See :class:`Writer`."""
        is_open = self._closing is None and not self._queue.failed
        return self._queue.enqueue(outgoing) if is_open else -1

    def buffered(self) -> int:
        """See :class:`Writer`."""
        return self._queue.queued

    def bytes_written(self) -> int:
        """See :class:`Writer`; here it is what the library's send has returned from."""
        return self._queue.sent

    # -- the handshake and the end ---------------------------------------------------------

    def request(self) -> Request:
        """See :class:`Transport`; two functions tell nothing."""
        return Request()

    def is_answered(self) -> bool:
        """See :class:`Transport`."""
        return True

    def check_sending(self) -> None:
        """See :class:`Transport`."""

    async def accept(self, subprotocol: str | None) -> None:
        """Nothing to answer."""

    async def refuse(self, status: int, text: str) -> None:
        """See :class:`Transport`."""
        self.close(*refusal_close(status, text))

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

    # -- the reading side, which there is none of ------------------------------------------

    def can_read(self) -> bool:
        """See :class:`Transport`."""
        return False

    async def receive(self) -> Message:
        """Nothing ever comes from here; waits for the end."""
        await self._closed.wait()
        raise TransportClosed(*(self._closing or ()))

    def ignore_incoming(self) -> None:
        """See :class:`Transport`: nothing was here."""

    def watch(self, watcher: Watcher, ahead: Ahead) -> None:
        """See :class:`Transport`: departures are not told here."""

    async def unwatch(self, watcher: Watcher) -> None:
        """See :class:`Transport`."""

    def reading(self) -> Reading:
        """See :class:`Transport`."""
        return Reading.UNTOUCHED

    async def alive(self, within: float) -> bool:
        """See :class:`Transport`; a client cannot be asked here, so it is there until it leaves."""
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
