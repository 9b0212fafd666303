"""Makes connections members and ends their memberships: the calls that users await."""

import asyncio
import inspect
import logging
from collections.abc import Iterable
from functools import partial

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.hooks import Hooks
from cluster_pool.cluster.node_life import NodeLife
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.cluster.user_limit import UserLimit
from cluster_pool.core.config import check_on_conflict
from cluster_pool.core.history import Resumption
from cluster_pool.core.results import NodeState
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ClusterPoolError,
    IdTakenError,
    MembershipLimitError,
    NodeDrainingError,
    PoolClosedError,
)
from cluster_pool.local import attachment
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Departure, Membership
from cluster_pool.local.persons import Persons
from cluster_pool.local.protocol import EmptyCallback
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool")


class Admission:
    """Admits connections while the node accepts newcomers; ends memberships at any time.

    Args:
        takeover: whether a claim takes an id over if the call does not say.
    """

    def __init__(
        self,
        backplane: Backplane,
        life: NodeLife,
        table: ConnectionTable,
        ownership: Ownership,
        hooks: Hooks,
        user_limit: UserLimit,
        takeover: bool,
    ) -> None:
        self._deadline = backplane.deadline
        self._identity = backplane.identity
        self._outage = backplane.shard.outage
        self._life = life
        self._table = table
        self._ownership = ownership
        self._hooks = hooks
        self._user_limit = user_limit
        self._takeover = takeover
        self._persons = Persons(backplane.identity.start)
        self._joining: set[Connection] = set()
        """Connections whose claims are under way: a second one would take the id from the first."""

    async def join(
        self, connection: Connection, on_conflict: str | None, timeout: float | None
    ) -> Resumption | None:
        """Make a connection a member; see :meth:`ClusterPool.new_connection`.

        Returns what its claim has found, in a namespace with a history.
        """
        deadline = self._deadline(timeout)
        takeover = self.takeover(on_conflict)
        try:
            self.check_open()
            if connection.identity is not None:
                self._table.check_identity(connection.identity)
            found = await self._claim(connection, takeover, deadline)
        except BaseException as error:
            log.debug("refused: %r: %r", connection, error)
            self._count(error)
            raise
        if connection.identity is not None:
            self._table.renewed(connection)
        log.debug("joined: %r", connection)
        return found

    def _count(self, error: BaseException) -> None:
        counters = self._table.counters
        if isinstance(error, NodeDrainingError):
            counters.draining_refused += 1
        elif isinstance(error, IdTakenError):
            counters.ids_taken += 1
        elif isinstance(error, MembershipLimitError):
            counters.limited += 1
        elif isinstance(error, BackplaneUnavailableError):
            counters.unserved += 1

    def takeover(self, on_conflict: str | None) -> bool:
        """Whether a claim may take an id over; raises InvalidValueError if the word is wrong."""
        return self._takeover if on_conflict is None else check_on_conflict(on_conflict)

    def check_open(self) -> None:
        """Raise NodeDrainingError or PoolClosedError unless this node accepts newcomers."""
        state = self._life.state
        if state in (NodeState.DRAINING, NodeState.DRAINED):
            raise NodeDrainingError(f"node {self._identity.node_id} is {state.value}")
        if state not in (NodeState.ACTIVE, NodeState.ANNOUNCING):
            raise PoolClosedError(f"node {self._identity.node_id} is {state.value}")

    async def _claim(
        self, connection: Connection, takeover: bool, deadline: float
    ) -> Resumption | None:
        if connection in self._joining or self._is_member(connection):
            raise ClusterPoolError(f"{connection!r} is a member already")
        attachment.attach(connection, self._table)
        self._joining.add(connection)
        person = self._persons.membership_of(connection)
        home = Membership(connection, connection.namespace, connection.id)
        try:
            # Whom a newcomer displaces is closed for those that have their home already.
            order = (home, person) if self._user_limit.displaces else (person, home)
            found = await self._claim_each([one for one in order if one], takeover, deadline)
            if person is not None:
                self._user_limit.joined(person.namespace)
            return found
        except BaseException:
            attachment.detach(connection)
            raise
        finally:
            self._joining.discard(connection)

    def _is_member(self, connection: Connection) -> bool:
        """Whether it has memberships, other than one that departs since its home was refused."""
        memberships = self._table.memberships_of(connection)
        return any(not one.person or one.departure is None for one in memberships)

    async def _claim_each(
        self, memberships: Iterable[Membership[Connection]], takeover: bool, deadline: float
    ) -> Resumption | None:
        """Claim memberships one after another; if one fails, release those before it.

        Returns what the claim of the home has found.
        """
        claimed: list[Membership[Connection]] = []
        found = None
        try:
            for one in memberships:
                self.check_open()  # a drain may have begun meanwhile
                taking = takeover or one.person
                resumption = await self._ownership.claim(one, takeover=taking, deadline=deadline)
                found = resumption if one.home else found
                claimed.append(one)
        except BaseException:
            for one in claimed:
                self._ownership.release(one)
            raise
        return found

    async def leave(
        self, connection: Connection, on_empty: EmptyCallback | None, timeout: float | None
    ) -> None:
        """End a connection's memberships; see :meth:`ClusterPool.remove_connection`."""
        deadline = self._deadline(timeout)
        memberships = self._table.memberships_of(connection)
        if any(one.departure is None for one in memberships):
            attachment.check_services(connection, self._table)
        departures = [self._ownership.release(one) for one in memberships]
        home = self._table.departure_of(connection, connection.namespace)
        for departure in departures if home is None else [home, *departures]:
            callback = on_empty if departure.namespace == connection.namespace else None
            await self.ended(departure, callback, deadline)

    async def ended(
        self, departure: Departure, on_empty: EmptyCallback | None, deadline: float
    ) -> None:
        """Wait for the end of a departure; call ``on_empty``, later if need be, if it was the last.

        It is called later if the deadline passes, or if this is cancelled: the release goes on. So
        it is as long as Redis may lack members: see :class:`.LastOnes`.

        Raises BackplaneUnavailableError if Redis has not answered by the deadline.
        """
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(departure.over)
        except (TimeoutError, asyncio.CancelledError) as given_up:
            if on_empty is not None:
                late = partial(self._emptied_late, departure, on_empty)
                departure.over.add_done_callback(late)
            if isinstance(given_up, asyncio.CancelledError):
                raise
            raise self._outage.error("not released yet", maybe_executed=True) from None
        if on_empty is None:
            return
        if departure.undecided is not None:
            self._emptied_late(departure, on_empty, departure.over)
        elif departure.pop_emptied():
            result = on_empty()
            if inspect.isawaitable(result):
                await result

    def _emptied_late(
        self, departure: Departure, callback: EmptyCallback, over: asyncio.Future[None]
    ) -> None:
        undecided = departure.undecided
        if undecided is not None:
            undecided.add_done_callback(partial(self._emptied_late, departure, callback))
        elif departure.pop_emptied():
            self._hooks.call("empty", callback)
