"""Decides about memberships in a process without a cluster: who enters, joins, leaves and loses."""

import inspect
from collections.abc import Callable

from cluster_pool.core.closing import ABNORMAL, NORMAL
from cluster_pool.core.config import Limits, Timing, check_on_conflict
from cluster_pool.core.history import NO_WISH, Wish
from cluster_pool.core.ids import check_id, check_namespace
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import (
    ConnectionClosedError,
    IdTakenError,
    MembershipLimitError,
    NodeDrainingError,
)
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Departure, JoinedMembership, Membership
from cluster_pool.local.outbox import kick
from cluster_pool.local.persons import Persons
from cluster_pool.local.profiles import set_info
from cluster_pool.local.protocol import EmptyCallback
from cluster_pool.local.table import ConnectionTable


class LocalMemberships:
    """The memberships of one process. Each operation is done when it returns.

    Args:
        takeover: whether a newer connection takes an id over if the call does not say.
        draining: whether no newcomers are accepted now.

    Attributes:
        table: the memberships.
    """

    def __init__(
        self, limits: Limits, timing: Timing, takeover: bool, draining: Callable[[], bool]
    ) -> None:
        self._takeover = takeover
        self._draining = draining
        self._persons = Persons()
        self.table = ConnectionTable(
            limits=limits,
            timing=timing,
            counters=Counters(),
            on_closing=self.depart,
            on_join=self.join,
            on_leave=self.leave,
        )

    async def add(self, connection: Connection) -> None:
        """Make a connection a member at home; see :meth:`.ConnectionsPool.new_connection`."""
        home = Membership(connection, connection.namespace, connection.id)
        rival = await self._rival(home, self._takeover)
        person = self._person(connection)
        self._enter(home, rival, self._takeover)
        if person is not None:
            self.table.add(person)

    def _person(self, connection: Connection) -> Membership[Connection] | None:
        """The membership that a connection gets among those of its user, if it has none there.

        Raises MembershipLimitError if it would be one too many.
        """
        if any(one.person for one in self.table.memberships_of(connection)):
            return None
        person = self._persons.membership_of(connection)
        if person is not None:
            limit, most = self.table.limits.room_in(person.namespace)
            if len(self.table.namespace(person.namespace) or ()) >= most:
                raise MembershipLimitError(limit, most)
        return person

    async def join(
        self,
        connection: Connection,
        namespace: str,
        id: str | None,
        on_conflict: str | None,
        timeout: float | None,
        wish: Wish = NO_WISH,
        info: str | None = None,
    ) -> None:
        """Make a connection a member of one more namespace; see :meth:`.Connection.join`."""
        id = connection.id if id is None else check_id(id)
        takeover = self._takeover if on_conflict is None else check_on_conflict(on_conflict)
        joined = JoinedMembership(connection, check_namespace(namespace), id)
        if self.table.check_join(joined):
            return
        if on_conflict is None:
            holder = self._holder(joined)
            takeover = takeover and (holder is None or holder.connection.user == connection.user)
        rival = await self._rival(joined, takeover)
        if not self.table.check_join(joined):  # else another task has joined it meanwhile
            set_info(connection, joined.namespace, info)
            self._enter(joined, rival, takeover)

    async def _rival(
        self, membership: Membership[Connection], takeover: bool
    ) -> Membership[Connection] | None:
        """The membership of another connection that has the id; None when it may be had."""
        rival = self._holder(membership)
        if rival is not None and not takeover:
            await self.table.signs.of(rival.connection)  # others may come or go meanwhile
            rival = self._holder(membership)
        return rival

    def _holder(self, membership: Membership[Connection]) -> Membership[Connection] | None:
        held = self.table.get(membership.namespace, membership.id)
        return None if held is None or held.connection is membership.connection else held

    def _enter(
        self,
        membership: Membership[Connection],
        rival: Membership[Connection] | None,
        takeover: bool,
    ) -> None:
        connection = membership.connection
        if connection.closed:  # its client may have left meanwhile
            raise ConnectionClosedError(connection.close_code or ABNORMAL, connection.close_reason)
        if self._draining():
            raise NodeDrainingError("this pool is draining")
        if rival is not None:
            if not takeover:
                raise IdTakenError(membership.namespace, membership.id)
            self.table.counters.taken_over += 1
        self.table.add(membership)
        if rival is not None:
            self._end(rival)
            self.table.lose(rival)

    async def leave(
        self,
        connection: Connection,
        namespace: str,
        on_empty: EmptyCallback | None,
        timeout: float | None,
    ) -> None:
        """End one membership, perhaps of a closed connection; see :meth:`.Connection.leave`."""
        membership = self.table.membership_in(connection, namespace)
        if membership is None:
            departure = self.table.departure_of(connection, namespace)
        else:
            departure = self._end(membership)
        if on_empty is not None and departure is not None and departure.pop_emptied():
            result = on_empty()
            if inspect.isawaitable(result):
                await result

    def depart(self, connection: Connection) -> None:
        """End all memberships of a connection."""
        for membership in self.table.memberships_of(connection):
            self._end(membership)

    def remove(self, membership: Membership[Connection]) -> None:
        """End a membership: close its connection if this is its home, else tell it."""
        if membership.home:
            kick(membership.connection, NORMAL, "")
        else:
            self._end(membership)
            self.table.tell_left(membership, "removed")

    def _end(self, membership: Membership[Connection]) -> Departure:
        departure = membership.depart()
        departure.end(self.table.discard(membership))
        return departure
