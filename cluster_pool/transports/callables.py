"""A pair of functions, ``send`` and ``close``, of whatever library."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from cluster_pool.core.message import Message, Outgoing
from cluster_pool.core.request import Request
from cluster_pool.transports.base import TransportClosed, refusal_close
from cluster_pool.transports.queued import SendQueue


class SendAndClose:
    """Base class of an object whose ``send`` and ``close`` are such a pair."""


class CallablesTransport(SendQueue):
    """``send(message)`` and ``close(code, reason)``, sync or async; it has no reading side.

    Sync functions are called at once, so long as nothing async is being awaited. What the client
    sends is handed to the connection with ``feed``; that it has gone, with ``close``.
    """

    def __init__(self, send: Callable[..., Any], close: Callable[..., Any]) -> None:
        super().__init__()
        self._send = send
        self._close = close
        self._closing: tuple[int, str] | None = None
        self._closed = asyncio.Event()

    def write(self, outgoing: Outgoing, taken: int = 0) -> int:
        """See :class:`Transport`."""
        return self.enqueue(outgoing) if self.is_open() else -1

    def buffered(self) -> int:
        """See :class:`Transport`."""
        return self._queued

    def taken(self) -> int:
        """See :class:`Transport`; here it is what the library's send has returned from."""
        return self._sent

    def request(self) -> Request:
        """See :class:`Transport`; two functions tell nothing."""
        return Request()

    def is_answered(self) -> bool:
        """See :class:`Transport`."""
        return True

    def can_read(self) -> bool:
        """See :class:`Transport`."""
        return False

    def is_open(self) -> bool:
        """Whether messages can be written now."""
        return self._closing is None and not self.failed

    def is_closed(self) -> bool:
        """See :class:`Transport`."""
        return self._closed.is_set() or self.failed

    def close(self, code: int, reason: str) -> None:
        """See :class:`Transport`."""
        if self._closing is None:
            self._closing = (code, reason)
            self.enqueue_close(code, reason)

    def abort(self) -> None:
        """See :class:`Transport`."""
        self.drop()
        self._closed.set()

    async def accept(self, subprotocol: str | None) -> None:
        """Nothing to answer."""

    async def refuse(self, status: int, text: str) -> None:
        """See :class:`Transport`."""
        self.close(*refusal_close(status, text))

    async def alive(self, within: float) -> bool:
        """See :class:`Transport`; a client cannot be asked here, so it is there until it leaves."""
        return not self.is_closed()

    async def wait_closed(self) -> None:
        """See :class:`Transport`."""
        await self._closed.wait()

    async def receive(self) -> Message:
        """Nothing ever comes from here; waits for the end."""
        await self._closed.wait()
        raise TransportClosed(*(self._closing or ()))

    async def _send_now(self, outgoing: Outgoing) -> None:
        sent = self._send(outgoing.message)
        if inspect.isawaitable(sent):
            await sent

    async def _close_now(self, code: int, reason: str) -> None:
        try:
            closed = self._close(code, reason)
            if inspect.isawaitable(closed):
                await closed
        finally:
            self._closed.set()
