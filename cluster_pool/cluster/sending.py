"""Sends messages and closes into the cluster: to one member or to all of a namespace.

A node passes a shortcut to its own connections; a publisher has none.
"""

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final, Protocol

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.confirmation import Confirmation
from cluster_pool.cluster.gathering import Gathering
from cluster_pool.cluster.replies import Replies
from cluster_pool.core import envelope
from cluster_pool.core.closing import check_close
from cluster_pool.core.config import Confirm, check_confirm, check_on_conflict, check_timeout
from cluster_pool.core.envelope import ReplyTo
from cluster_pool.core.ids import (
    check_excluded,
    check_excluded_users,
    check_id,
    check_namespace,
)
from cluster_pool.core.message import Author, encode
from cluster_pool.core.results import BroadcastReport, SendResult
from cluster_pool.core.tally import TallyRequest

Receipt = tuple[Callable[[SendResult], None], float]
"""Gets the client's receipt, or the news that there is none; and until when it is wanted."""


KEPT: Final = 1
"""Messages are kept by the history of their namespace."""


class Shortcut(Protocol):
    """Sends to members of this process without Redis."""

    def send(
        self,
        namespace: str,
        id: str,
        text: bool,
        payload: bytes,
        close: tuple[int, str] | None,
        receipt: Receipt | None = None,
    ) -> SendResult | None:
        """Deliver a message, and with ``close`` close the connection behind it.

        None when the member is not here, or the message would overtake another: then it must go
        over Redis. Else ``receipt`` is told as well, perhaps later.
        """

    def close(
        self, namespace: str, id: str, code: int, reason: str, receipt: Receipt | None = None
    ) -> SendResult | None:
        """Close a member's connection; None as in :meth:`send`."""


class Sending:
    """Checks messages, and gives them to a member here or to the backplane."""

    def __init__(self, backplane: Backplane, replies: Replies, shortcut: Shortcut | None) -> None:
        self._loop = backplane.loop
        self._deadline = backplane.deadline
        self._timeout = check_timeout(backplane.setup.timing.timeout)
        self._outbound = backplane.outbound
        self._message_bytes = backplane.setup.limits.message_bytes
        self._replies = replies
        self._shortcut = shortcut

    def send_nowait(
        self,
        namespace: str,
        id: str,
        message: str | bytes,
        timeout: float | None,
        future: asyncio.Future[SendResult],
    ) -> asyncio.Future[SendResult]:
        """Send one message to one member; the future gets the result."""
        seconds = self._timeout if timeout is None else check_timeout(timeout)
        deadline = self._loop.time() + seconds
        namespace, id = check_namespace(namespace), check_id(id)
        text, payload = encode(message, self._message_bytes)
        if self._shortcut is not None:
            result = self._shortcut.send(namespace, id, text, payload, None)
            if result is not None:
                future.set_result(result)
                return future
        item = envelope.targeted(text, namespace, id, payload)
        return self._outbound.send(namespace, id, item, deadline, future, KEPT)

    def send(
        self,
        namespace: str,
        id: str,
        message: str | bytes,
        close: tuple[int, str] | None,
        confirm: Confirm,
        timeout: float | None,
        future: asyncio.Future[SendResult],
    ) -> asyncio.Future[SendResult]:
        """Send one message to one member, and with ``close`` close the connection behind it.

        With ``confirm`` the result is the owner's answer, or that of the client.
        """
        deadline, confirm = self._deadline(timeout), check_confirm(confirm)
        namespace, id = check_namespace(namespace), check_id(id)
        text, payload = encode(message, self._message_bytes)
        return self.send_checked(namespace, id, text, payload, close, confirm, deadline, future)

    def send_checked(
        self,
        namespace: str,
        id: str,
        text: bool,
        payload: bytes,
        close: tuple[int, str] | None,
        confirm: Confirm,
        deadline: float,
        future: asyncio.Future[SendResult],
    ) -> asyncio.Future[SendResult]:
        """As :meth:`send`, with an encoded message, and names that may be the library's own."""
        if self._shortcut is not None:
            receipt = _receipt(confirm, future, deadline)
            result = self._shortcut.send(namespace, id, text, payload, close, receipt)
            if result is not None:
                return self._sent_here(result, receipt, future)

        def item(reply: ReplyTo | None) -> bytes:
            wanted = self._receipt_ms(confirm, deadline)
            return envelope.targeted(
                text, namespace, id, payload, close=close, reply=reply, receipt_ms=wanted
            )

        return self._route(namespace, id, item, confirm, deadline, future, KEPT)

    def close(
        self,
        namespace: str,
        id: str,
        code: int,
        reason: str,
        confirm: Confirm,
        timeout: float | None,
    ) -> asyncio.Future[SendResult]:
        """Close one member's connection; ``confirm`` as for :meth:`send`."""
        deadline, confirm = self._deadline(timeout), check_confirm(confirm)
        namespace, id = check_namespace(namespace), check_id(id)
        code, reason = check_close(code, reason)
        future: asyncio.Future[SendResult] = self._loop.create_future()
        if self._shortcut is not None:
            receipt = _receipt(confirm, future, deadline)
            result = self._shortcut.close(namespace, id, code, reason, receipt)
            if result is not None:
                return self._sent_here(result, receipt, future)

        def item(reply: ReplyTo | None) -> bytes:
            wanted = self._receipt_ms(confirm, deadline)
            return envelope.close_one(namespace, id, code, reason, reply, receipt_ms=wanted)

        return self._route(namespace, id, item, confirm, deadline, future)

    def broadcast(
        self,
        namespace: str,
        message: str | bytes,
        exclude: Iterable[str],
        exclude_users: Iterable[str],
        confirm: Confirm,
        timeout: float | None,
    ) -> asyncio.Future[int] | asyncio.Future[BroadcastReport]:
        """Send one message to every member of a namespace but the excluded ids and users.

        With ``confirm`` the result is the report of what the nodes answer.
        """
        deadline, confirm = self._deadline(timeout), check_confirm(confirm)
        namespace = check_namespace(namespace)
        text, payload = encode(message, self._message_bytes)
        users = check_excluded_users(exclude_users) if exclude_users else ()
        item = partial(envelope.broadcast, text, payload, check_excluded(exclude), users)
        if confirm is False:
            return self._outbound.broadcast(namespace, item(), deadline)
        return self._gather(namespace, item, confirm == "client", deadline)

    def _gather(
        self,
        namespace: str,
        item: Callable[[TallyRequest], bytes],
        receipts: bool,
        deadline: float,
    ) -> asyncio.Future[BroadcastReport]:
        gathering = Gathering(self._replies, deadline, self._loop)
        left = deadline - self._loop.time()
        request = TallyRequest.until(gathering.to, left, receipts=receipts)
        try:
            sent = self._outbound.broadcast(namespace, item(request), deadline)
        except BaseException:
            self._replies.forget(gathering.to)
            raise
        return gathering.begin(sent)

    def publish(
        self, author: Author, namespace: str, message: str | bytes, timeout: float | None
    ) -> asyncio.Future[int]:
        """Send one message of a client to every member of a namespace, itself included."""
        deadline = self._deadline(timeout)
        namespace = check_namespace(namespace)
        text, payload = encode(message, self._message_bytes)
        item = envelope.published(text, payload, author)
        return self._outbound.broadcast(namespace, item, deadline)

    def close_all(
        self, namespace: str, code: int, reason: str, timeout: float | None
    ) -> asyncio.Future[int]:
        """Close every member's connection."""
        deadline = self._deadline(timeout)
        namespace = check_namespace(namespace)
        item = envelope.close_all(*check_close(code, reason))
        return self._outbound.broadcast(namespace, item, deadline)

    def join(
        self,
        namespace: str,
        id: str,
        joined: str,
        as_id: str | None,
        on_conflict: str | None,
        timeout: float | None,
    ) -> asyncio.Future[SendResult]:
        """Have the connection of a member join a namespace; the result is the owner's answer."""
        deadline = self._deadline(timeout)
        namespace, id, joined = check_namespace(namespace), check_id(id), check_namespace(joined)
        as_id = "" if as_id is None else check_id(as_id)
        if on_conflict is not None:
            check_on_conflict(on_conflict)
        item = partial(envelope.join, namespace, id, joined, as_id, on_conflict or "")
        return self._confirmed(namespace, id, item, deadline, self._loop.create_future())

    def leave(
        self, namespace: str, id: str, left: str, timeout: float | None
    ) -> asyncio.Future[SendResult]:
        """Have the connection of a member leave a namespace; the result is the owner's answer."""
        deadline = self._deadline(timeout)
        namespace, id, left = check_namespace(namespace), check_id(id), check_namespace(left)
        item = partial(envelope.leave, namespace, id, left)
        return self._confirmed(namespace, id, item, deadline, self._loop.create_future())

    def remove_all(self, namespace: str, timeout: float | None) -> asyncio.Future[int]:
        """End every membership of a namespace."""
        deadline = self._deadline(timeout)
        namespace = check_namespace(namespace)
        return self._outbound.broadcast(namespace, envelope.remove_all(), deadline)

    def _sent_here(
        self, result: SendResult, receipt: Receipt | None, future: asyncio.Future[SendResult]
    ) -> asyncio.Future[SendResult]:
        """The future of a result that is known, or is a receipt that is awaited."""
        if receipt is None:
            future.set_result(result)
        elif not future.done():
            timer = self._loop.call_at(receipt[1], receipt[0], SendResult.TIMED_OUT)
            future.add_done_callback(lambda _: timer.cancel())
        return future

    def _receipt_ms(self, confirm: Confirm, deadline: float) -> int:
        """Milliseconds in which the owner may wait for the client; 0 if it is not to wait."""
        return 0 if confirm != "client" else max(1, int((deadline - self._loop.time()) * 1000))

    def _route(
        self,
        namespace: str,
        id: str,
        item: Callable[[ReplyTo | None], bytes],
        confirm: Confirm,
        deadline: float,
        future: asyncio.Future[SendResult],
        kept: int = 0,
    ) -> asyncio.Future[SendResult]:
        """Send a targeted item to its owner; with ``confirm``, wait for the owner's answer."""
        if confirm:
            return self._confirmed(namespace, id, item, deadline, future, kept)
        return self._outbound.send(namespace, id, item(None), deadline, future, kept)

    def _confirmed(
        self,
        namespace: str,
        id: str,
        item: Callable[[ReplyTo | None], bytes],
        deadline: float,
        future: asyncio.Future[SendResult],
        kept: int = 0,
    ) -> asyncio.Future[SendResult]:
        to, answer = self._replies.expect()
        try:
            sent = self._outbound.send(namespace, id, item(to), deadline, None, kept)
        except BaseException:
            self._replies.forget(to)
            raise
        return Confirmation(self._replies, to, answer, deadline, future).begin(sent)


def _receipt(
    confirm: Confirm, future: asyncio.Future[SendResult], deadline: float
) -> Receipt | None:
    """The future as what is told of the client's receipt, if that is wanted."""
    return (partial(_settle, future), deadline) if confirm == "client" else None


def _settle(future: asyncio.Future[SendResult], result: SendResult) -> None:
    if not future.done():
        future.set_result(result)
