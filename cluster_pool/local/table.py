"""The memberships of this node by namespace and id, and operations on many of them.

Synchronous, but for operations on many connections, which yield in between. A lookup never creates
anything.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection

from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.message import Outgoing
from cluster_pool.core.quiet import Quiet
from cluster_pool.core.results import SendResult
from cluster_pool.core.statistics import Counters
from cluster_pool.local.attachment import attach
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Departure, Membership
from cluster_pool.local.outbox import deliver, deliver_to_all, kick, write_out
from cluster_pool.local.services import Flusher
from cluster_pool.local.signs import SignsOfLife
from cluster_pool.local.sweeper import Sweeper
from cluster_pool.loops import check_loop, running_loop

YIELD_EVERY = 1000
"""Connections in one part of a fan-out before other tasks run."""


class ConnectionTable:
    """The memberships; implements the services of its connections."""

    def __init__(
        self,
        *,
        limits: Limits,
        timing: Timing,
        counters: Counters,
        on_closing: Callable[[Connection], None],
        on_slow_consumer: Callable[[Connection], None] = lambda connection: None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.limits = limits
        self.timing = timing
        self.counters = counters
        self.flusher = Flusher(write_out)
        self.quiet = Quiet()
        """Decides which lines about connections are logged."""
        self.signs = SignsOfLife(timing.sign_of_life)
        self._sweeper = Sweeper()
        self.members: dict[str, dict[str, Membership[Connection]]] = {}
        """By namespace and id, for fast lookups by others; changed only here."""
        self._busy: dict[str, asyncio.Event] = {}
        self._count = 0
        self._loop = loop
        self._bound = loop is not None
        self.connection_closing = on_closing
        self.slow_consumer = on_slow_consumer
        self.watch = self._sweeper.watch

    def __len__(self) -> int:
        return self._count

    def check_loop(self) -> None:
        """Raise WrongLoopError unless this is the loop in which the connections live.

        A table without a given loop belongs to that of its first connection; while it is empty,
        any loop is right.
        """
        loop = self._loop
        if loop is not None and (self._bound or self._count):
            check_loop(loop)
        else:
            self._loop = running_loop()

    async def stop(self) -> None:
        """Wait until every close has ended, by handshake or at its deadline; end the sweep."""
        await self.signs.stop()
        self.flusher.flush()
        await self._sweeper.stop()

    # -- membership ------------------------------------------------------------------------

    def add(self, membership: Membership[Connection]) -> None:
        """Add a membership, here and at its connection; it replaces one with the same id here.

        It is counted as accepted.
        """
        connection = membership.connection
        attach(connection, self)
        connection._memberships = (membership,)
        connection._departure = None
        members = self.members.setdefault(membership.namespace, {})
        if membership.id not in members:
            self._count += 1
        members[membership.id] = membership
        self.counters.accepted += 1

    def discard(self, membership: Membership[Connection]) -> bool:
        """Remove a membership, unless another has its id; True when its namespace is empty now.

        Its connection drops it, too, and keeps only its departure: a cycle of the two would live
        until the garbage collector runs.
        """
        connection = membership.connection
        if membership in connection._memberships:
            connection._memberships = ()
            connection._departure = membership.departure
        members = self.members.get(membership.namespace)
        if members is None or members.get(membership.id) is not membership:
            return False
        del members[membership.id]
        self._count -= 1
        if members:
            return False
        del self.members[membership.namespace]
        return True

    def memberships_of(self, connection: Connection) -> tuple[Membership[Connection], ...]:
        """The memberships of a connection, its home first."""
        return connection._memberships

    def departure_of(self, connection: Connection) -> Departure | None:
        """The departure of the last membership of a connection that is no member any more."""
        return connection._departure

    def get(self, namespace: str, id: str) -> Membership[Connection] | None:
        """The membership with an id, or None."""
        members = self.members.get(namespace)
        return members.get(id) if members is not None else None

    def namespace(self, namespace: str) -> dict[str, Membership[Connection]] | None:
        """The members of a namespace by id, or None when it has none."""
        return self.members.get(namespace)

    def namespaces(self) -> list[str]:
        """The namespaces that have members."""
        return list(self.members)

    def memberships(self) -> list[Membership[Connection]]:
        """Every membership."""
        return [one for members in self.members.values() for one in members.values()]

    def connections(self) -> list[Connection]:
        """Every connection."""
        return [one.connection for one in self.memberships()]

    # -- sending and closing ---------------------------------------------------------------

    def send(self, namespace: str, id: str, message: Outgoing) -> SendResult:
        """Deliver to one member; ABSENT when there is none."""
        membership = self.get(namespace, id)
        return SendResult.ABSENT if membership is None else deliver(membership.connection, message)

    def namespace_busy(self, namespace: str) -> bool:
        """Whether a fan-out to this namespace is still under way."""
        return namespace in self._busy

    async def wait_fanned_out(self, namespace: str) -> None:
        """Wait until no fan-out to this namespace is under way."""
        while (event := self._busy.get(namespace)) is not None:
            await event.wait()

    async def broadcast(
        self, namespace: str, message: Outgoing, exclude: Collection[str] = ()
    ) -> int:
        """Deliver to every member but the excluded; returns the number of outboxes that got it."""
        if namespace in self._busy:
            await self.wait_fanned_out(namespace)
        members = self.members.get(namespace)
        if members is None:
            return 0
        if exclude:
            chosen = [one for id, one in members.items() if id not in exclude]
        else:
            chosen = list(members.values())  # one whose outbox is full is removed meanwhile
        if len(chosen) <= YIELD_EVERY:
            return deliver_to_all(self, chosen, message)
        delivered = 0
        async for part in self._in_parts(namespace, chosen):
            delivered += deliver_to_all(self, part, message)
        return delivered

    async def close_all(
        self, namespace: str, code: int, reason: str, exclude: Collection[str] = ()
    ) -> int:
        """Begin to close every member but the excluded; returns how many."""
        if namespace in self._busy:
            await self.wait_fanned_out(namespace)
        members = self.members.get(namespace) or {}
        chosen = [one for id, one in members.items() if id not in exclude]
        async for part in self._in_parts(namespace, chosen):
            for membership in part:
                kick(membership.connection, code, reason)
        return len(chosen)

    async def _in_parts(
        self, namespace: str, chosen: list[Membership[Connection]]
    ) -> AsyncIterator[list[Membership[Connection]]]:
        self._busy[namespace] = done = asyncio.Event()
        try:
            for at in range(0, len(chosen), YIELD_EVERY):
                if at:
                    await asyncio.sleep(0)
                yield chosen[at : at + YIELD_EVERY]
        finally:
            del self._busy[namespace]
            done.set()
