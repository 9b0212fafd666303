"""The memberships of this node by namespace and id, and operations on many of them.

Synchronous, but for operations on many connections, which yield in between. A lookup never creates
anything.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any, Literal

from cluster_pool.auth.identity import Identity
from cluster_pool.core.closing import ABNORMAL, TAKEN_OVER
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.history import Wish
from cluster_pool.core.ids import shown
from cluster_pool.core.message import Outgoing
from cluster_pool.core.quiet import Quiet
from cluster_pool.core.results import SendResult
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import (
    ClusterPoolError,
    ConnectionClosedError,
    MembershipLimitError,
)
from cluster_pool.local.attachment import DETACHED, attach
from cluster_pool.local.connection import Connection
from cluster_pool.local.handlers import fire, has_handlers
from cluster_pool.local.membership import Departure, Membership
from cluster_pool.local.outbox import deliver, deliver_to_all, kick, ping_out, write_out
from cluster_pool.local.profiles import set_info
from cluster_pool.local.services import Flusher
from cluster_pool.local.signs import SignsOfLife
from cluster_pool.local.sweeper import Sweeper
from cluster_pool.loops import check_loop, running_loop

YIELD_EVERY = 1000
"""Connections in one part of a fan-out before other tasks run."""

Cause = Literal["taken over", "removed"]
"""Why a joined membership ended without its connection: its id was claimed, or it was removed."""


Join = Callable[
    [Connection, str, str | None, str | None, float | None, Wish, str | None],
    Awaitable[bool | None],
]
Leave = Callable[[Connection, str, Callable[[], Any] | None, float | None], Awaitable[None]]
Inform = Callable[[Connection, str, float | None], Awaitable[None]]
"""Joins, leaves and infos of connections that are members: see :class:`ConnectionServices`."""


class ConnectionTable:
    """The memberships; implements the services of its connections.

    Args:
        on_join, on_leave, on_inform: join, leave and inform for connections; by default there is
            nothing to join, and nobody to inform.
        receipts: whether pongs and answered closes are receipts of clients.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        timing: Timing,
        counters: Counters,
        on_closing: Callable[[Connection], None],
        on_slow_consumer: Callable[[Connection], None] = lambda connection: None,
        on_identity: Callable[[Identity], None] = DETACHED.check_identity,
        on_renewed: Callable[[Connection], None] = DETACHED.renewed,
        on_withdraw: Callable[[Connection, str], None] = DETACHED.withdraw,
        on_join: Join = DETACHED.join,
        on_leave: Leave = DETACHED.leave,
        on_inform: Inform = DETACHED.inform,
        receipts: bool = True,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.limits, self.timing, self.counters = limits, timing, counters
        self.flusher, self.pinger = Flusher(write_out), Flusher(ping_out)
        self.quiet = Quiet()
        """Decides which lines about connections are logged."""
        self.receipts = receipts
        self.signs = SignsOfLife(timing.sign_of_life)
        self._sweeper = Sweeper()
        self.members: dict[str, dict[str, Membership[Connection]]] = {}
        """By namespace and id, for fast lookups by others; changed only here."""
        self._busy: dict[str, asyncio.Event] = {}
        self._count = self._memberships = 0
        self._people = 0
        """The number of namespaces that are those of users."""
        self._telling: set[asyncio.Task[None]] = set()
        self._loop = loop
        self._bound = loop is not None
        self.connection_closing = on_closing
        self.slow_consumer = on_slow_consumer
        self.check_identity, self.renewed = on_identity, on_renewed
        self.withdraw = on_withdraw
        self.join, self.leave, self.inform = on_join, on_leave, on_inform
        self.watch = self._sweeper.watch

    def __len__(self) -> int:
        """The number of connections: each once, whatever it has joined."""
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
        for task in list(self._telling):
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)

    # -- membership ------------------------------------------------------------------------

    def add(self, membership: Membership[Connection]) -> None:
        """Add a membership, here and at its connection; it replaces one with the same id here.

        A home is counted as accepted.
        """
        connection = membership.connection
        if membership.home:
            attach(connection, self)
            joined = tuple(one for one in connection._memberships if not one.home)
            connection._memberships = (membership, *joined)
            connection._departures = ()
            self.counters.accepted += 1
        else:
            connection._memberships += (membership,)
        members = self.members.get(membership.namespace)
        if members is None:
            members = self.members[membership.namespace] = {}
            self._people += membership.person
        older = members.get(membership.id)
        self._count += membership.home - (older is not None and older.home)
        self._memberships += older is None
        members[membership.id] = membership

    def discard(self, membership: Membership[Connection]) -> bool:
        """Remove a membership, unless another has its id; True when its namespace is empty now.

        Its connection drops it, too: a cycle of the two would live until the garbage collector
        runs. It keeps the departure of its home, and those of all others if it is closed.
        """
        connection = membership.connection
        memberships = connection._memberships
        if membership in memberships:
            at = memberships.index(membership)
            connection._memberships = memberships[:at] + memberships[at + 1 :]
            set_info(connection, membership.namespace, None)
            departure = membership.departure
            if departure is not None and (membership.home or connection.closed):
                connection._departures += (departure,)
        members = self.members.get(membership.namespace)
        if members is None or members.get(membership.id) is not membership:
            return False
        del members[membership.id]
        self._count -= membership.home
        self._memberships -= 1
        if members:
            return False
        del self.members[membership.namespace]
        self._people -= membership.person
        return True

    def memberships_of(self, connection: Connection) -> tuple[Membership[Connection], ...]:
        """The memberships of a connection, its home first while it has one."""
        return connection._memberships

    def membership_in(
        self, connection: Connection, namespace: str
    ) -> Membership[Connection] | None:
        """The membership of a connection in one namespace, or None."""
        for membership in connection._memberships:
            if membership.namespace == namespace:
                return membership
        return None

    def departure_of(self, connection: Connection, namespace: str) -> Departure | None:
        """The departure of a membership that a connection had in a namespace before it ended."""
        for departure in connection._departures:
            if departure.namespace == namespace:
                return departure
        return None

    def departs_in(self, namespace: str) -> bool:
        """Whether a membership in a namespace departs."""
        members = self.members.get(namespace) or {}
        return any(one.departure is not None for one in members.values())

    def is_at_home(self, connection: Connection) -> bool:
        """Whether a connection is open, and has a home that does not depart."""
        memberships = connection._memberships
        home = memberships[0] if memberships and memberships[0].home else None
        return home is not None and home.departure is None and not connection.closed

    def check_join(self, joined: Membership[Connection], coming: int = 0) -> bool:
        """Whether a connection has joined a namespace already; raises if it may not.

        Args:
            joined: the membership that it would have.
            coming: how many more namespaces it is about to join.

        Raises:
            ConnectionClosedError, ClusterPoolError, MembershipLimitError: see
                :meth:`.Connection.join`.
        """
        connection = joined.connection
        if connection.closed:
            raise ConnectionClosedError(connection.close_code or ABNORMAL, connection.close_reason)
        if not self.is_at_home(connection):
            raise ClusterPoolError(f"{connection!r} is no member of a pool")
        membership = self.membership_in(connection, joined.namespace)
        if membership is not None:
            if membership.id == joined.id:
                return True
            raise ClusterPoolError(
                f"{connection!r} is a member of {shown(joined.namespace)} already, "
                f"under the id {shown(membership.id)}"
            )
        allowed = self.limits.connection_namespaces
        held = sum(not one.person for one in connection._memberships)
        if held + coming >= allowed:
            raise MembershipLimitError("connection_namespaces", allowed)
        return False

    def lose(self, membership: Membership[Connection]) -> None:
        """Another connection owns its id now: close its connection with 4409 if this was its home.

        A joined membership is lost alone.
        """
        if membership.home:
            kick(membership.connection, TAKEN_OVER, "taken over")
        else:
            self.tell_left(membership, "taken over")

    def tell_left(self, membership: Membership[Connection], cause: Cause) -> None:
        """Call the ``left`` handlers of a connection that has lost a joined membership."""
        connection = membership.connection
        if has_handlers(connection, "left") and not membership.person:
            task = asyncio.create_task(fire(connection, "left", membership.namespace, cause))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    def get(self, namespace: str, id: str) -> Membership[Connection] | None:
        """The membership with an id, or None."""
        members = self.members.get(namespace)
        return members.get(id) if members is not None else None

    def namespace(self, namespace: str) -> dict[str, Membership[Connection]] | None:
        """The members of a namespace by id, or None when it has none."""
        return self.members.get(namespace)

    def namespaces(self) -> list[str]:
        """The namespaces that have members, those of users among them."""
        return list(self.members)

    def namespace_count(self) -> int:
        """The number of namespaces that have members, without those of users."""
        return len(self.members) - self._people

    def membership_count(self) -> int:
        """The number of memberships: homes, joined ones, and those of users."""
        return self._memberships

    def outboxes(self) -> dict[str, int]:
        """For ``statistics()``: how many outboxes wait for the kernel, and with how many bytes."""
        count, size = self._sweeper.waiting
        return {"outboxes_waiting": count, "outbox_bytes": size}

    def memberships(self) -> list[Membership[Connection]]:
        """Every membership."""
        return [one for members in self.members.values() for one in members.values()]

    def connections(self) -> list[Connection]:
        """Every connection, once."""
        return [one.connection for one in self.memberships() if one.home]

    # -- sending and closing ---------------------------------------------------------------

    def send(self, namespace: str, id: str, message: Outgoing) -> SendResult:
        """Deliver to one member; ABSENT when there is none."""
        membership = self.get(namespace, id)
        if membership is None:
            return SendResult.ABSENT
        message.source = (namespace, "", 0)
        return deliver(membership.connection, message)

    def namespace_busy(self, namespace: str) -> bool:
        """Whether a fan-out to this namespace is still under way."""
        return namespace in self._busy

    async def wait_fanned_out(self, namespace: str) -> None:
        """Wait until no fan-out to this namespace is under way."""
        while (event := self._busy.get(namespace)) is not None:
            await event.wait()

    async def broadcast(
        self,
        namespace: str,
        message: Outgoing,
        exclude: Collection[str] = (),
        users: Collection[str] = (),
    ) -> int:
        """Deliver to every member but the excluded; returns the number of outboxes that got it.

        Args:
            exclude, users: ids that do not get it, and users none of whose connections does.
        """
        if message.source is None:
            message.source = (namespace, "", 0)
        if namespace in self._busy:
            await self.wait_fanned_out(namespace)
        members = self.members.get(namespace)
        if members is None:
            return 0
        if exclude:
            chosen = [one for id, one in members.items() if id not in exclude]
        else:
            chosen = list(members.values())  # one whose outbox is full is removed meanwhile
        if users:
            chosen = [one for one in chosen if one.connection.user not in users]
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
        closed = 0
        async for part in self.parts(namespace, exclude):
            closed += len(part)
            for membership in part:
                kick(membership.connection, code, reason)
        return closed

    async def parts(
        self, namespace: str, exclude: Collection[str] = ()
    ) -> AsyncIterator[list[Membership[Connection]]]:
        """The present members but the excluded; no fan-out begins before the last part."""
        if namespace in self._busy:
            await self.wait_fanned_out(namespace)
        members = self.members.get(namespace) or {}
        chosen = [one for id, one in members.items() if id not in exclude]
        async for part in self._in_parts(namespace, chosen):
            yield part

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
