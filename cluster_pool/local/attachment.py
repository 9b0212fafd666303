"""Which pool a connection belongs to, and the services of connections without a pool."""

import asyncio
from collections.abc import Callable
from typing import Any

from cluster_pool.auth.identity import Identity
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.history import NO_WISH, Wish
from cluster_pool.core.profiles import check_size
from cluster_pool.core.quiet import Quiet
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import ClusterPoolError
from cluster_pool.local.grant import Grant
from cluster_pool.local.outbox import ping_out, write_out
from cluster_pool.local.services import ConnectionServices, Flusher, LooseFlusher, Owner
from cluster_pool.local.state import OPEN, ConnectionState
from cluster_pool.local.sweeper import look
from cluster_pool.loops import running_loop
from cluster_pool.transports.base import Writer


class Detached:
    """The services of connections without a pool: a timer of its own ends each close."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.timing = Timing()
        self.counters = Counters()
        self.flusher: Flusher[ConnectionState] = LooseFlusher(write_out)
        self.pinger: Flusher[ConnectionState] = LooseFlusher(ping_out)
        self.quiet = Quiet()
        self.receipts = True

    def check_loop(self) -> None:
        """See :class:`ConnectionServices`."""
        running_loop()

    def connection_closing(self, connection: ConnectionState) -> None:
        """See :class:`ConnectionServices`."""

    def slow_consumer(self, connection: ConnectionState) -> None:
        """See :class:`ConnectionServices`."""

    def check_identity(self, identity: Identity) -> None:
        """See :class:`ConnectionServices`: without a pool none is revoked."""

    def renewed(self, connection: ConnectionState) -> None:
        """See :class:`ConnectionServices`."""

    def withdraw(self, connection: ConnectionState, namespace: str) -> None:
        """See :class:`ConnectionServices`: there is none."""

    async def join(
        self,
        connection: ConnectionState,
        namespace: str,
        id: str | None,
        on_conflict: str | None,
        timeout: float | None,
        wish: Wish = NO_WISH,
        info: str | None = None,
    ) -> bool | None:
        """See :class:`ConnectionServices`: without a pool there is nothing to join."""
        raise ClusterPoolError(f"{connection!r} is no member of a pool")

    async def leave(
        self,
        connection: ConnectionState,
        namespace: str,
        on_empty: Callable[[], Any] | None,
        timeout: float | None,
    ) -> None:
        """See :class:`ConnectionServices`."""

    async def inform(
        self, connection: ConnectionState, namespace: str, timeout: float | None
    ) -> None:
        """See :class:`ConnectionServices`: nobody sees it."""

    def watch(self, connection: ConnectionState) -> None:
        """See :class:`ConnectionServices`."""
        loop = asyncio.get_running_loop()
        if connection.closed:
            due = self.timing.close
            loop.call_later(due, look, connection, loop.time() + due)


DETACHED = Detached()


def attach(connection: ConnectionState, services: ConnectionServices) -> None:
    """Make it belong to a pool.

    Raises:
        ClusterPoolError: it belongs to another one.
        InvalidValueError: its info is too large for this one.
    """
    if connection._services is not DETACHED:
        check_services(connection, services)
    for info in (connection._infos or {}).values():
        check_size(info, services.limits.info_bytes)
    if connection._state is OPEN:
        connection._transport.check_sending()
    connection._services = services
    if connection.idle_timeout is not None:
        connection._last_heard = asyncio.get_running_loop().time()
        services.watch(connection)


def grant(connection: ConnectionState, given: Grant) -> None:
    """Give it an identity, before it becomes a member."""
    connection._grant = given


def write_by(connection: ConnectionState, writer: Writer) -> None:
    """Write its messages by another writer, which hands them to that of its transport."""
    connection._writer = writer


def writer_of(connection: ConnectionState) -> Writer:
    """The writer of its messages."""
    return connection._writer


def is_expired(connection: ConnectionState) -> bool:
    """Whether its identity does not count any more."""
    return connection._grant is not None and connection._grant.expired


def check_services(connection: ConnectionState, services: ConnectionServices) -> None:
    """Raise ClusterPoolError unless it belongs to this pool."""
    if connection._services is not services:
        raise ClusterPoolError(f"{connection!r} belongs to another pool")


def detach(connection: ConnectionState) -> None:
    """Make it belong to no pool any more."""
    connection._services = DETACHED


def services_of(connection: ConnectionState) -> ConnectionServices:
    """The services of its pool, or DETACHED."""
    return connection._services


def set_owner(connection: ConnectionState, owner: Owner | None) -> None:
    """Tell ``owner`` when it is over; None for no owner."""
    connection._owner = owner
