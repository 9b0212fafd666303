"""The public calls that send; :class:`Sending` does the work."""

import asyncio
from collections.abc import Iterable
from typing import Any, Literal, overload

from cluster_pool.cluster.public.handle import Calls
from cluster_pool.core.closing import NORMAL, check_close
from cluster_pool.core.config import Confirm
from cluster_pool.core.message import to_json
from cluster_pool.core.results import BroadcastReport, SendResult
from cluster_pool.exceptions import BackplaneUnavailableError


class SendingCalls(Calls):
    """Messages and closes for members anywhere in the cluster."""

    async def send(
        self,
        namespace: str,
        id: str,
        message: str | bytes,
        *,
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> SendResult:
        """Send one message to one member, wherever it is.

        Messages from here to one connection arrive in the order of these calls, each at most once:
        nothing is retried. Concurrent sends share round trips.

        Args:
            namespace, id: the member.
            message: ``str`` arrives as a text message, ``bytes`` as a binary one.
            confirm: True waits for the owner's answer: DELIVERED, REFUSED, ABSENT, or TIMED_OUT.
                ``"client"`` waits until the message is in the client's WebSocket stack: RECEIVED.
                The answer is DELIVERED where the server keeps pongs to itself (see
                docs/guarantees.md), and TIMED_OUT when the client answers no ping in time, or the
                connection is lost before.
            timeout: seconds, more than 0; default 2, at most an hour (as for every call).

        Returns:
            The result; truthy for DELIVERED, ROUTED and RECEIVED. See :class:`SendResult`.

        Raises:
            InvalidValueError: an argument is not allowed, the message too large among them.
            WrongLoopError: called in another thread or loop than :meth:`start`, as for every call.
            PendingLimitError: too much waits for Redis already.
            BackplaneUnavailableError: not sent; with ``maybe_executed``, Redis did not answer.
        """
        running = self._running()
        future: asyncio.Future[SendResult] = running.loop.create_future()
        if confirm is not False:
            call = running.sending.send(namespace, id, message, None, confirm, timeout, future)
        else:
            call = running.sending.send_nowait(namespace, id, message, timeout, future)
        try:
            return await call
        except BackplaneUnavailableError:
            self._counters().sends_failed += 1
            raise

    def send_nowait(
        self, namespace: str, id: str, message: str | bytes, *, timeout: float | None = None
    ) -> asyncio.Future[SendResult]:
        """:meth:`send` for code that does not wait, or sends many at once: it makes no tasks.

        The message has its place in the order when this returns. The future gives the result or
        the error; asyncio logs an error that is never read. Cancelling it drops the message if it
        was not written to Redis yet.

        Raises:
            InvalidValueError, PendingLimitError: as :meth:`send`, at once.
            PoolClosedError: not started, or stopped.
            WrongLoopError: called in another thread or loop than :meth:`start`.
        """
        running = self._running()
        future: asyncio.Future[SendResult] = running.loop.create_future()
        return running.sending.send_nowait(namespace, id, message, timeout, future)

    async def send_json(
        self,
        namespace: str,
        id: str,
        value: Any,
        *,
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> SendResult:
        """Send ``value`` as JSON text; as :meth:`send`."""
        return await self.send(namespace, id, to_json(value), confirm=confirm, timeout=timeout)

    async def send_then_close(
        self,
        namespace: str,
        id: str,
        message: str | bytes,
        code: int = NORMAL,
        reason: str = "",
        *,
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> SendResult:
        """Send one message to one member and close its connection behind it; as :meth:`send`."""
        running, close = self._running(), check_close(code, reason)
        future: asyncio.Future[SendResult] = running.loop.create_future()
        return await running.sending.send(namespace, id, message, close, confirm, timeout, future)

    async def send_json_then_close(
        self,
        namespace: str,
        id: str,
        value: Any,
        code: int = NORMAL,
        reason: str = "",
        *,
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> SendResult:
        """Send ``value`` as JSON text and close behind it; as :meth:`send`."""
        return await self.send_then_close(
            namespace, id, to_json(value), code, reason, confirm=confirm, timeout=timeout
        )

    async def close(
        self,
        namespace: str,
        id: str,
        code: int = NORMAL,
        reason: str = "",
        *,
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> SendResult:
        """Close one member's connection, wherever it is; results and errors as :meth:`send`."""
        sending = self._running().sending
        return await sending.close(namespace, id, code, reason, confirm, timeout)

    @overload
    async def broadcast_message(
        self,
        namespace: str,
        message: str | bytes,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Literal[False] = False,
        timeout: float | None = None,
    ) -> int: ...

    @overload
    async def broadcast_message(
        self,
        namespace: str,
        message: str | bytes,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Literal[True, "client"],
        timeout: float | None = None,
    ) -> BroadcastReport: ...

    async def broadcast_message(
        self,
        namespace: str,
        message: str | bytes,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> int | BroadcastReport:
        """Send one message to every member of a namespace, on every node.

        Every member sees the broadcasts of its namespace in one order, the same everywhere.

        Args:
            exclude: ids that do not get it, at most 10,000.
            exclude_users: users none of whose connections gets it, at most 10,000.
            confirm: True waits until every node that heard it has said how many of its connections
                got it. ``"client"`` has the nodes wait for the receipts of their clients: see
                :meth:`send`. Either ends at the ``timeout``, with what has come.
            timeout: seconds; default 2.

        Returns:
            The number of nodes that Redis sent it to. 0 proves that no node got it; more proves
            nothing. With ``confirm``, a :class:`BroadcastReport`.

        Raises:
            As :meth:`send`.
        """
        return await self._broadcast(namespace, message, exclude, exclude_users, confirm, timeout)

    @overload
    async def broadcast_json_message(
        self,
        namespace: str,
        value: Any,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Literal[False] = False,
        timeout: float | None = None,
    ) -> int: ...

    @overload
    async def broadcast_json_message(
        self,
        namespace: str,
        value: Any,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Literal[True, "client"],
        timeout: float | None = None,
    ) -> BroadcastReport: ...

    async def broadcast_json_message(
        self,
        namespace: str,
        value: Any,
        exclude: Iterable[str] = (),
        *,
        exclude_users: Iterable[str] = (),
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> int | BroadcastReport:
        """Send ``value`` as JSON text to every member; as :meth:`broadcast_message`."""
        text = to_json(value)
        return await self._broadcast(namespace, text, exclude, exclude_users, confirm, timeout)

    async def _broadcast(
        self,
        namespace: str,
        message: str | bytes,
        exclude: Iterable[str],
        users: Iterable[str],
        confirm: Confirm,
        timeout: float | None,
    ) -> int | BroadcastReport:
        sending = self._running().sending
        try:
            return await sending.broadcast(namespace, message, exclude, users, confirm, timeout)
        except BackplaneUnavailableError:
            self._counters().broadcasts_failed += 1
            raise

    async def close_all(
        self,
        namespace: str,
        code: int = NORMAL,
        reason: str = "",
        *,
        timeout: float | None = None,
    ) -> int:
        """Close every member's connection; returns how many nodes Redis sent it to.

        It comes behind the broadcasts that were sent before it. Raises as :meth:`send`.
        """
        return await self._running().sending.close_all(namespace, code, reason, timeout)
