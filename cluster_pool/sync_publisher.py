"""A publisher for code without an event loop: each call blocks its thread, with a time-out.

Owns what a fork needs: a child begins a thread of its own, and closes nothing of its parent.
"""

import asyncio
import os
import threading
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from functools import partial
from typing import Any, Self, TypeVar

from cluster_pool.backplane.backplane import DEFAULT_REDIS
from cluster_pool.cluster.background import Background, Work
from cluster_pool.core.closing import NORMAL, SERVICE_RESTART
from cluster_pool.core.config import Confirm, Limits, check_timeout
from cluster_pool.core.history import HistoryMessage
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.results import Delivery, DrainProgress, Member, Node, SendResult
from cluster_pool.core.seals import Secret
from cluster_pool.exceptions import BackplaneUnavailableError, PoolClosedError
from cluster_pool.publisher import Publisher
from cluster_pool.sync_broadcasts import SyncBroadcasts

T = TypeVar("T")


class SyncPublisher(SyncBroadcasts):
    """:class:`Publisher` for code without an event loop: the same methods, blocking.

    It does not have ``send_nowait``, ``watch`` and ``watching``, which need an event loop.

    It runs a publisher in a thread of its own, which begins at the first use. A child of a fork
    begins another thread, so it may be made and used before a fork. Several threads may use it at
    once; sends from one thread keep their order. A call lasts ``timeout`` seconds at most, with
    the start of the publisher. Stop it, or use it with ``with``.

    Args: as :class:`Publisher`, but ``redis`` is a URL.
    """

    def __init__(
        self,
        redis: str = DEFAULT_REDIS,
        *,
        prefix: str = DEFAULT_PREFIX,
        timeout: float = 2.0,
        limits: Limits | None = None,
        secret: Secret | Iterable[Secret] | None = None,
    ) -> None:
        self._make = partial(
            Publisher, redis, prefix=prefix, timeout=timeout, limits=limits, secret=secret
        )
        self._address = self._make().address  # raises for arguments that are not allowed
        self._timeout = check_timeout(timeout)
        self._background: Background[Publisher] | None = None
        self._stopped = False
        self._lock = threading.RLock()
        _PUBLISHERS.add(self)

    def __enter__(self) -> Self:
        try:
            self._call(_nothing)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Disconnect and end the thread, within ``timeout`` seconds. A second call does nothing.

        Calls of other threads that are under way raise PoolClosedError.
        """
        with self._lock:
            self._stopped = True
        self._end()

    def _end(self) -> None:
        with self._lock:
            background, self._background = self._background, None
        if background is not None:
            background.stop(self._timeout)

    @property
    def address(self) -> str:
        """The address of Redis, without its password."""
        return self._address

    def send(
        self,
        namespace: str,
        id: str,
        message: str | bytes,
        *,
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> SendResult:
        """As :meth:`Publisher.send`."""
        return self._call(Publisher.send, namespace, id, message, confirm=confirm, timeout=timeout)

    def send_json(
        self,
        namespace: str,
        id: str,
        value: Any,
        *,
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> SendResult:
        """As :meth:`Publisher.send_json`."""
        return self._call(
            Publisher.send_json, namespace, id, value, confirm=confirm, timeout=timeout
        )

    def send_then_close(
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
        """As :meth:`Publisher.send_then_close`."""
        work = Publisher.send_then_close
        return self._call(
            work, namespace, id, message, code, reason, confirm=confirm, timeout=timeout
        )

    def send_json_then_close(
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
        """As :meth:`Publisher.send_json_then_close`."""
        work = Publisher.send_json_then_close
        return self._call(
            work, namespace, id, value, code, reason, confirm=confirm, timeout=timeout
        )

    def close(
        self,
        namespace: str,
        id: str,
        code: int = NORMAL,
        reason: str = "",
        *,
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> SendResult:
        """As :meth:`Publisher.close`: closes a member's connection, not this publisher."""
        return self._call(
            Publisher.close, namespace, id, code, reason, confirm=confirm, timeout=timeout
        )

    def close_all(
        self, namespace: str, code: int = NORMAL, reason: str = "", *, timeout: float | None = None
    ) -> int:
        """As :meth:`Publisher.close_all`."""
        return self._call(Publisher.close_all, namespace, code, reason, timeout=timeout)

    def send_user(
        self,
        user: str,
        message: str | bytes,
        *,
        confirm: Confirm = False,
        timeout: float | None = None,
    ) -> Delivery:
        """As :meth:`Publisher.send_user`."""
        return self._call(Publisher.send_user, user, message, confirm=confirm, timeout=timeout)

    def online(self, users: Iterable[str], *, timeout: float | None = None) -> dict[str, int]:
        """As :meth:`Publisher.online`."""
        return self._call(Publisher.online, users, timeout=timeout)

    def close_user(
        self, user: str, code: int = NORMAL, reason: str = "", *, timeout: float | None = None
    ) -> int:
        """As :meth:`Publisher.close_user`."""
        return self._call(Publisher.close_user, user, code, reason, timeout=timeout)

    def revoke(
        self, token_id: str, until: float | None = None, *, timeout: float | None = None
    ) -> int:
        """As :meth:`Publisher.revoke`."""
        return self._call(Publisher.revoke, token_id, until, timeout=timeout)

    def join(
        self,
        namespace: str,
        id: str,
        joined: str,
        *,
        as_id: str | None = None,
        on_conflict: str | None = None,
        timeout: float | None = None,
    ) -> SendResult:
        """As :meth:`Publisher.join`."""
        return self._call(
            Publisher.join,
            *(namespace, id, joined),
            as_id=as_id,
            on_conflict=on_conflict,
            timeout=timeout,
        )

    def leave(
        self, namespace: str, id: str, left: str, *, timeout: float | None = None
    ) -> SendResult:
        """As :meth:`Publisher.leave`."""
        return self._call(Publisher.leave, namespace, id, left, timeout=timeout)

    def remove_all(self, namespace: str, *, timeout: float | None = None) -> int:
        """As :meth:`Publisher.remove_all`."""
        return self._call(Publisher.remove_all, namespace, timeout=timeout)

    def count(self, namespace: str, *, timeout: float | None = None) -> int:
        """As :meth:`Publisher.count`."""
        return self._call(Publisher.count, namespace, timeout=timeout)

    def locate(self, namespace: str, id: str, *, timeout: float | None = None) -> Member | None:
        """As :meth:`Publisher.locate`."""
        return self._call(Publisher.locate, namespace, id, timeout=timeout)

    def position(self, namespace: str, *, timeout: float | None = None) -> str:
        """As :meth:`Publisher.position`."""
        return self._call(Publisher.position, namespace, timeout=timeout)

    def history(
        self,
        namespace: str,
        *,
        last: int = 50,
        as_id: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
    ) -> list[HistoryMessage]:
        """As :meth:`Publisher.history`."""
        work = partial(Publisher.history, last=last, as_id=as_id, user=user)
        return self._call(work, namespace, timeout=timeout)

    def namespaces(self, *, timeout: float | None = None) -> list[str]:
        """As :meth:`Publisher.namespaces`."""
        return self._call(Publisher.namespaces, timeout=timeout)

    def nodes(self, *, timeout: float | None = None) -> list[Node]:
        """As :meth:`Publisher.nodes`."""
        return self._call(Publisher.nodes, timeout=timeout)

    def drain_node(
        self,
        node_id: str,
        max_per_second: float | None = None,
        message: str | bytes = "",
        code: int = SERVICE_RESTART,
        *,
        grace: float | None = None,
        announce: float | None = None,
        force: bool = False,
        timeout: float | None = None,
    ) -> None:
        """As :meth:`Publisher.drain_node`."""
        work = partial(Publisher.drain_node, grace=grace, announce=announce, force=force)
        self._call(work, node_id, max_per_second, message, code, timeout=timeout)

    def pause_drain(self, node_id: str, *, timeout: float | None = None) -> None:
        """As :meth:`Publisher.pause_drain`."""
        self._call(Publisher.pause_drain, node_id, timeout=timeout)

    def resume_drain(self, node_id: str, *, timeout: float | None = None) -> None:
        """As :meth:`Publisher.resume_drain`."""
        self._call(Publisher.resume_drain, node_id, timeout=timeout)

    def cancel_drain(self, node_id: str, *, timeout: float | None = None) -> None:
        """As :meth:`Publisher.cancel_drain`."""
        self._call(Publisher.cancel_drain, node_id, timeout=timeout)

    def activate(self, node_id: str, *, timeout: float | None = None) -> None:
        """As :meth:`Publisher.activate`."""
        self._call(Publisher.activate, node_id, timeout=timeout)

    def drains(self, *, timeout: float | None = None) -> list[DrainProgress]:
        """As :meth:`Publisher.drains`."""
        return self._call(Publisher.drains, timeout=timeout)

    def drain_budget(self, *, timeout: float | None = None) -> float | None:
        """As :meth:`Publisher.drain_budget`."""
        return self._call(Publisher.drain_budget, timeout=timeout)

    def set_drain_budget(self, rate: float | None, *, timeout: float | None = None) -> None:
        """As :meth:`Publisher.set_drain_budget`."""
        self._call(Publisher.set_drain_budget, rate, timeout=timeout)

    def members(self, namespace: str, *, timeout: float | None = None) -> Iterator[Member]:
        """As :meth:`Publisher.members`; ``timeout`` is for each step."""
        background, seconds = self._running(), self._seconds(timeout)
        pages = background.publisher.members(namespace, timeout=timeout)
        while (member := background.call(_next, (pages,), {}, seconds)) is not None:
            yield member

    def _call(
        self, work: Work[T], *arguments: Any, timeout: float | None = None, **options: Any
    ) -> T:
        return self._running().call(work, arguments, options, self._seconds(timeout))

    def _seconds(self, timeout: float | None) -> float:
        return self._timeout if timeout is None else check_timeout(timeout)

    def _running(self) -> Background[Publisher]:
        with self._lock:
            if self._stopped:
                raise PoolClosedError("this publisher was stopped")
            if self._background is None:
                self._background = Background(self._make())
            return self._background

    def _after_fork(self) -> None:
        """In the child of a fork: replace the lock, which a thread of the parent may have held."""
        self._lock = threading.RLock()
        background, self._background = self._background, None
        if background is not None:
            background.abandon()
            _ABANDONED.append(background)


_PUBLISHERS: "weakref.WeakSet[SyncPublisher]" = weakref.WeakSet()
_ABANDONED: list[Background[Publisher]] = []
"""Threads and loops of the parent, kept in the child for ever, so that it does not close them."""


def _begin_anew() -> None:
    for publisher in list(_PUBLISHERS):
        publisher._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_anew)


async def _nothing(publisher: Publisher, *, timeout: float) -> None:
    """Do nothing: ``with`` waits for this call, and so for the start of the publisher."""


async def _next(
    publisher: Publisher, members: AsyncIterator[Member], *, timeout: float
) -> Member | None:
    try:
        async with asyncio.timeout(timeout):
            return await anext(members, None)
    except TimeoutError:
        raise BackplaneUnavailableError("no page of members in time") from None
