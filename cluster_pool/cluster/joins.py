"""Joins and leaves of connections that are members already: the calls that users await.

Each joined namespace has a membership of its own, with a claim like that of the home. Joins and
leaves of one namespace by one connection happen one after another, in the order of the calls.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable
from functools import partial
from sys import intern

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.calls import ending_at
from cluster_pool.cluster.admission import Admission
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.cluster.rejoins import Rejoins
from cluster_pool.core.claims import Claim
from cluster_pool.core.closing import ABNORMAL
from cluster_pool.core.history import NO_WISH, Resumption, Wish
from cluster_pool.core.ids import check_id, check_namespace, shown
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ClusterPoolError,
    ConnectionClosedError,
)
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import JoinedMembership, Membership
from cluster_pool.local.profiles import profile_of, set_info
from cluster_pool.local.protocol import EmptyCallback
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool")


class Turn:
    """The turn of one connection in one namespace, while any call has it or waits for it.

    Attributes:
        calls: the number of these calls.
        claiming: whether the call that has it is a join that claims.
    """

    __slots__ = ("calls", "claiming", "lock")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.calls = 0
        self.claiming = False


class Joins:
    """Joins while the node accepts newcomers; leaves at any time."""

    def __init__(
        self,
        backplane: Backplane,
        table: ConnectionTable,
        ownership: Ownership,
        admission: Admission,
        rejoins: Rejoins,
    ) -> None:
        self._rejoins = rejoins
        self._deadline = backplane.deadline
        self._topology = backplane.topology
        self._claims = backplane.claims
        self._table = table
        self._ownership = ownership
        self._admission = admission
        self._turns: dict[Connection, dict[str, Turn]] = {}

    async def join(
        self,
        connection: Connection,
        namespace: str,
        id: str | None,
        on_conflict: str | None,
        timeout: float | None,
        wish: Wish = NO_WISH,
        info: str | None = None,
    ) -> bool | None:
        """Make a connection a member of one more namespace; see :meth:`.Connection.join`."""
        deadline = self._deadline(timeout)
        takeover: bool | None = self._admission.takeover(on_conflict)
        if takeover and on_conflict is None:
            takeover = None  # only from a connection of the same user, since it was not asked for
        namespace = intern(check_namespace(namespace))  # one string for all of its memberships
        id = connection.id if id is None else check_id(id)
        joined = JoinedMembership(connection, namespace, id)
        try:
            async with self.turn(connection, namespace, deadline) as turn:
                await self._departed(connection, namespace, deadline)
                await self._rejoins.prepare(namespace)
                coming = sum(one.claiming for one in self._turns[connection].values())
                if self._table.check_join(joined, coming):
                    return None
                self._admission.check_open()
                turn.claiming = True
                set_info(connection, namespace, info)  # the claim tells it
                claim = self._ownership.claim(joined, takeover=takeover, deadline=deadline)
                recovered = await self._rejoin(joined, claim, wish)
        except BaseException as error:
            log.debug("not joined: %r, %s: %r", connection, shown(namespace), error)
            raise
        log.debug("joined: %r, %s", connection, shown(namespace))
        return recovered

    async def _rejoin(
        self,
        joined: JoinedMembership[Connection],
        claim: Awaitable[Resumption | None],
        wish: Wish,
    ) -> bool | None:
        """Win a claim, and get what was missed; if that is cancelled meanwhile, release it."""
        try:
            return await self._rejoins.join(joined, claim, wish)
        except BaseException:
            if joined.claim is not None:
                self._ownership.release(joined)
            else:
                set_info(joined.connection, joined.namespace, None)
            raise

    async def _departed(self, connection: Connection, namespace: str, deadline: float) -> None:
        """Wait for the end of an earlier membership that departs from the namespace."""
        membership = self._table.membership_in(connection, namespace)
        if membership is None or membership.departure is None or connection.closed:
            return
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(membership.departure.over)
        except TimeoutError:
            raise self._topology.of(namespace).in_vain() from None

    @contextlib.asynccontextmanager
    async def turn(
        self, connection: Connection, namespace: str, deadline: float
    ) -> AsyncIterator[Turn]:
        """Have the turn, when the calls before this one have had it.

        Raises BackplaneUnavailableError when they last longer than ``deadline``.
        """
        turns = self._turns.setdefault(connection, {})
        turn = turns.setdefault(namespace, Turn())
        turn.calls += 1
        try:
            if turn.calls > 1:
                await self._wait(turn, namespace, deadline)
            else:
                await turn.lock.acquire()  # it is free
            try:
                yield turn
            finally:
                turn.claiming = False
                turn.lock.release()
        finally:
            turn.calls -= 1
            if not turn.calls:
                del turns[namespace]
                if not turns:
                    self._turns.pop(connection, None)

    async def _wait(self, turn: Turn, namespace: str, deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await turn.lock.acquire()
        except TimeoutError:
            raise self._topology.of(namespace).in_vain() from None

    async def inform(self, connection: Connection, namespace: str, timeout: float | None) -> None:
        """Register a member's present info; see :meth:`.Connection.update_info`.

        If its claim is not registered any more, that is asserted first.
        """
        deadline = self._deadline(timeout)
        for _ in range(2):
            shard = self._topology.of(namespace)
            await shard.connected(deadline)
            one, claim = self._held(connection, namespace)
            until, profile = shard.clock.at(deadline), profile_of(one)
            try:
                told = await self._claims.inform(namespace, one.id, claim, profile, until, deadline)
            except BaseException:
                self._ownership.restoration.untold(one)
                raise
            if told:
                self._ownership.restoration.informed(one)
                return
            links = await self._topology.connected(deadline)
            async with ending_at(deadline, partial(shard.in_vain, maybe_executed=True)):
                await self._ownership.restoration.doubtful(links, (one,))
        self._held(connection, namespace)
        raise BackplaneUnavailableError(f"the claim in {shown(namespace)} is not registered")

    def _held(self, connection: Connection, namespace: str) -> tuple[Membership[Connection], Claim]:
        """The membership of a connection, and its claim; raises if it has none any more."""
        one = self._table.membership_in(connection, namespace)
        if one is not None and one.departure is None and one.claim is not None:
            return one, one.claim
        if connection.closed:
            raise ConnectionClosedError(connection.close_code or ABNORMAL, connection.close_reason)
        raise ClusterPoolError(f"{connection!r} is no member of {shown(namespace)}")

    async def leave(
        self,
        connection: Connection,
        namespace: str,
        on_empty: EmptyCallback | None,
        timeout: float | None,
    ) -> None:
        """End one membership of a connection; see :meth:`.Connection.leave`."""
        deadline = self._deadline(timeout)
        async with self.turn(connection, namespace, deadline):
            membership = self._table.membership_in(connection, namespace)
            if membership is None:
                departure = self._table.departure_of(connection, namespace)
            else:
                departure = self._ownership.release(membership)
        if departure is not None:
            await self._admission.ended(departure, on_empty, deadline)
