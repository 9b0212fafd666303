"""Decides about this node's memberships: they claim an id, lose it to a newer claim, or release it.

A claim is *pending*, and known by its nonce, before it is sent. Messages that arrive for it wait in
the connection's outbox, a takeover of that nonce is noted, and the reply of Redis *decides* both.

The words: a newer claim *takes over* an id; the older membership is then *evicted*, and its
connection closed with 4409. A membership *departs* from its release (or its eviction) on, until
Redis has answered. A membership *enters* its namespace before its claim, and *leaves* it when it
has no claim any more. Only a lease is *settled*: see ``cluster/lease.py``.
"""

import asyncio
import contextlib
import itertools
from collections.abc import Collection, Iterable

from cluster_pool.backplane.calls import unheeded
from cluster_pool.backplane.claims import Claims
from cluster_pool.backplane.leases import Leases
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.slots import slot_of
from cluster_pool.backplane.topology import Links, Topology
from cluster_pool.cluster.claim_batcher import ClaimBatcher
from cluster_pool.cluster.last_ones import LastOnes
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.lease_keeper import Keep
from cluster_pool.cluster.namespaces import Namespaces
from cluster_pool.cluster.pending_claim import PendingClaim, PendingClaims
from cluster_pool.cluster.positions import Accounts
from cluster_pool.cluster.reassertion import Reassertion
from cluster_pool.cluster.release_batcher import ReleaseBatcher
from cluster_pool.cluster.restoration import Restoration
from cluster_pool.cluster.standing import Standing
from cluster_pool.cluster.takeover_fights import TakeoverFights
from cluster_pool.core.claims import Claim, FormerClaims
from cluster_pool.core.closing import ABNORMAL, TAKEN_OVER
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.history import Resumption
from cluster_pool.core.ids import base36
from cluster_pool.core.profiles import entry
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ConnectionClosedError,
    IdTakenError,
    PoolClosedError,
)
from cluster_pool.local import closing
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Departure, Membership
from cluster_pool.local.profiles import profile_of
from cluster_pool.local.table import ConnectionTable

FORMER = 1_000
"""Claims that are remembered after their end, in a cluster with a secret."""


class Ownership:
    """The claims of one node. The table has the memberships that own their ids.

    Args:
        verify: check takeovers against the registry first, because they may be forged.

    Attributes:
        newest: the Redis time in µs of the latest claim that was won here.
        former: claims that have ended, in a cluster with a secret.
    """

    def __init__(
        self,
        topology: Topology,
        leases: Leases,
        claims: Claims,
        namespaces: Namespaces,
        table: ConnectionTable,
        limits: Limits,
        timing: Timing,
        lease: LeaseState,
        fights: TakeoverFights,
        standing: Standing,
        last_ones: LastOnes,
        accounts: Accounts,
        *,
        verify: bool,
    ) -> None:
        self._verify, self._topology = verify, topology
        self._table, self._members = table, table.members
        self.standing, self._fights, self._namespaces = standing, fights, namespaces
        self._pending, self._last_ones, self._accounts = PendingClaims(), last_ones, accounts
        self.decided = self._pending.decided
        self.namespaces, self.holds = namespaces.held, namespaces.holds
        self._nonces, self.newest, self._ending = itertools.count(1), 0, False
        self.former = FormerClaims(FORMER if verify else 0)
        evict = self._evict
        self.releases = ReleaseBatcher(topology, claims, accounts.entry_of, self._released)
        self._reassertion = Reassertion(topology, claims, namespaces, table, timing, lease, evict)
        self.restoration = Restoration(topology, self._reassertion, table, lease, timing)
        self._claim_batcher = ClaimBatcher(
            *(topology, leases, claims, namespaces, timing, limits.room_in, lease),
            *(self.restoration, self.releases, self._decide),
        )
        self.tell_again = self._claim_batcher.tell_again

    async def stop(self) -> None:
        """End operations that are still under way; :meth:`end` has released the memberships."""
        parts = (self.standing, self._namespaces, self.restoration, self._claim_batcher)
        for part in (*parts, self._last_ones):
            await part.stop()
        error = BackplaneUnavailableError(
            "not released: stopped while Redis could not be reached; its lease runs out",
            maybe_executed=True,
        )
        for membership in self._table.memberships():
            if membership.departure is not None:
                membership.departure.fail(error)

    # -- lookups for other parts -----------------------------------------------------------

    def find(self, namespace: str, id: str, claim: str) -> Membership[Connection] | None:
        """The membership that an item was routed to: that of its claim, else that with the id.

        A claim that Redis has not answered yet is known only by its nonce.
        """
        if self._pending:
            nonce = claim.rpartition(":")[2]
            for pending in self._pending.get((namespace, id), ()):
                if pending.nonce == nonce:
                    return pending.membership
        members = self._members.get(namespace)  # as table.get(), with one call less
        return None if members is None else members.get(id)

    def taken_over(self, namespace: str, id: str, standing: Claim) -> None:
        """A claim was replaced; if it was one of ours, its connection is closed with 4409.

        With a secret the registry is asked first, since the message may be forged.
        """
        if standing.start != self._topology.home.start_name:
            return
        for pending in self._pending.get((namespace, id), ()):
            if pending.nonce == standing.nonce and not pending.won.done():
                pending.taken_at = standing.time
                return
        membership = self._table.get(namespace, id)
        claim = None if membership is None else membership.claim
        if membership is None or claim is None or claim.nonce != standing.nonce:
            return
        if standing.rejoin < claim.rejoin:
            return  # the claim was asserted since then, and kept
        if self._verify:
            self._claim_batcher.verify(membership)
        else:
            self._evict(membership)

    def coming(self) -> bool:
        """Whether claims are pending."""
        return bool(self._pending)

    def owned(self, namespace: str) -> list[Membership[Connection]]:
        """The memberships of a namespace that have a claim; those being released too."""
        members = self._table.namespace(namespace) or {}
        return [one for one in members.values() if one.claimed_at]

    def profiles(self, namespace: str, ids: Iterable[str]) -> list[tuple[str, bytes | None]]:
        """The ids that have a profile, or had one, each with its entry in the registry."""
        members = self._table.namespace(namespace) or {}
        held = [(id, members[id], profile_of(members[id])) for id in ids if id in members]
        return [(id, entry(one.claim, told)) for id, one, told in held if one.claim and told]

    def knows(self, namespace: str, id: str, nonce: str) -> bool:
        """Whether a claim is held here, or pending."""
        if any(one.nonce == nonce for one in self._pending.get((namespace, id), ())):
            return True
        membership = self._table.get(namespace, id)
        claim = None if membership is None else membership.claim
        return claim is not None and claim.nonce == nonce

    def moves(self, namespace: str, id: str) -> bool:
        """Whether a claim or release of an id is under way: Redis may be ahead of the table."""
        one = self._table.get(namespace, id)
        return (namespace, id) in self._pending or (one is not None and one.departure is not None)

    # -- claiming --------------------------------------------------------------------------

    async def claim(
        self, membership: Membership[Connection], *, takeover: bool | None, deadline: float
    ) -> Resumption | None:
        """Become the owner of the id of a membership, which is then in the table.

        Returns what the claim has found, in a namespace with a history.

        A claim whose reply was lost with the connection to Redis is sent again, and recognized if
        it is registered. Cancelling gives it up; if it was sent, it is released when it has been
        answered. A takeover of an id that clients fight for is delayed: see
        :class:`TakeoverFights`.

        Raises:
            IdTakenError: the id has a living owner and may not be taken over; or a newer claim
                took the id of a joined membership over at once.
            MembershipLimitError: the namespace or this node is full.
            ConnectionClosedError: a newer connection took the id of a home over at once (4409:
                this one is closed), the connection was closed meanwhile, or its client has gone.
            BackplaneUnavailableError: Redis did not answer in time, or has been away for a second
                already; nothing is owned, and a claim that may have been made is released as soon
                as Redis can be reached.
        """
        won = asyncio.get_running_loop().create_future()
        pending = PendingClaim(membership, base36(next(self._nonces)), takeover, deadline, won)
        task = self._claim_batcher.spawn(self._claim(pending))
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            pending.fail(ConnectionClosedError())  # a claim that wins later is released at once
            task.add_done_callback(unheeded)
            if pending.has_won:
                self.release(membership)
            raise
        if task.cancelled():  # by the stop, not by the caller
            raise PoolClosedError("stopped")
        task.result()
        return pending.resumption

    async def _claim(self, pending: PendingClaim) -> None:
        if self._ending:
            raise PoolClosedError("stopped")
        self._pending.begin(pending)
        try:
            shard = self._topology.of(pending.membership.namespace)
            await shard.connected_soon(pending.deadline)
            if pending.takeover:
                await self._fights.slow_down(pending)
            await self._register(pending)
        finally:
            self._pending.end(pending)

    async def _register(self, pending: PendingClaim) -> None:
        namespace = pending.membership.namespace
        self._namespaces.check_room(namespace)
        self._namespaces.enter(namespace)
        try:
            await self._namespaces.subscribed(namespace, pending.deadline)
            if closing.is_lost(pending.membership.connection):  # it must not take over the id
                raise ConnectionClosedError
            if not pending.won.done():
                self._claim_batcher.claim(pending)
            await self._decided(pending)
        except BaseException as error:
            given_up = pending.sent and isinstance(error, ConnectionClosedError)
            unanswered = given_up or isinstance(error, BackplaneUnavailableError)
            self._namespaces.leave(namespace, unanswered=unanswered)
            raise

    async def _decided(self, pending: PendingClaim) -> None:
        """Wait until a claim is decided, or its deadline; one that is won later is released."""
        try:
            async with asyncio.timeout_at(pending.deadline):
                await pending.won
        except TimeoutError:
            if not pending.won.cancelled():  # decided in this turn: if it won, it is owned already
                return pending.won.result()
            shard = self._topology.of(pending.membership.namespace)
            raise pending.late(shard.in_vain(maybe_executed=pending.sent)) from None

    def _decide(self, pending: PendingClaim, won: bool, claim: Claim) -> None:
        """Redis has answered: the id is owned now, or another claim of it is registered."""
        membership = pending.membership
        connection = membership.connection
        older = self._table.get(membership.namespace, membership.id)
        newer = older is not None and older.claim is not None and older.claim.time > claim.time
        overtaken = newer or (pending.taken_at >= claim.time and not self._verify)
        if not won and not pending.takeover:
            self._lost(pending, claim)
        elif not won or overtaken:
            self._overtaken(pending)
        elif pending.won.done() or not self._may_own(membership):
            self._release_won(membership, claim)
            pending.fail(ConnectionClosedError(connection.close_code or ABNORMAL))
        else:
            membership.claim = claim
            self.newest = max(self.newest, claim.time)
            self._table.add(membership)
            if pending.resumption is not None:
                self._accounts.begin(membership, pending.resumption)
            if older is not None:
                self._evict(older)
            pending.won.set_result(None)
            if pending.taken_at:
                self._claim_batcher.verify(membership)

    def _may_own(self, one: Membership[Connection]) -> bool:
        """Whether its connection is still open, and, if it joins, still has its home."""
        first = one.home or one.person
        return not one.connection.closed if first else self._table.is_at_home(one.connection)

    def _lost(self, pending: PendingClaim, standing: Claim) -> None:
        """Another claim is registered: ask its owner, once, whether that client still lives."""
        if pending.asked:
            pending.fail(IdTakenError(pending.membership.namespace, pending.membership.id))
        elif not pending.won.done():
            pending.asked = True
            self._claim_batcher.spawn(self._ask_owner(pending, standing))

    async def _ask_owner(self, pending: PendingClaim, standing: Claim) -> None:
        """Claim again if the registered connection has lost its client, else fail the claim."""
        gone = await self.standing.has_gone(pending, standing)
        if gone and not pending.won.done():
            self._claim_batcher.claim(pending)
        else:
            pending.fail(IdTakenError(pending.membership.namespace, pending.membership.id))

    def _overtaken(self, pending: PendingClaim) -> None:
        """A newer claim is registered already: this one is taken over, as an older one."""
        membership = pending.membership
        if pending.won.done():
            return
        self._fights.note(membership)
        if membership.home:
            self._table.lose(membership)
            pending.fail(ConnectionClosedError(TAKEN_OVER, "taken over"))
        else:
            pending.fail(IdTakenError(membership.namespace, membership.id))

    def _release_won(self, membership: Membership[Connection], claim: Claim) -> None:
        """The claim succeeded after its caller gave up: release it, as if it had been held."""
        membership.claim = claim
        self._namespaces.enter(membership.namespace)
        self.release(membership)

    # -- releasing -------------------------------------------------------------------------

    def release(self, membership: Membership[Connection]) -> Departure:
        """Release a membership's id, unless that has begun.

        While Redis cannot be reached the release waits for it, and the departure lasts as long.
        """
        if membership.departure is None:
            membership.depart()
            if membership.claim is None:
                self._released(membership, False)
            elif not self._accounts.parks(membership, self._claim_batcher.release):
                self._claim_batcher.release(membership)
        return membership.depart()

    def shard_up(self, shard: Shard) -> None:
        """One of several shards is up again: compare its claims, send the operations for it."""
        self.releases.doubt_latest(lambda name: self._topology.of(name) is shard)
        self.restoration.shard_up(shard)
        self._claim_batcher.retry()

    def moved(self, slots: Collection[int]) -> None:
        """As :meth:`shard_up`, for slots that have other shards now: by a failover, too."""
        self.releases.doubt_latest(lambda name: slot_of(name) in slots)
        self.restoration.moved(slots)
        self._claim_batcher.retry()

    def end(self) -> None:
        """Fail the claims that are pending or come; one that wins all the same is released."""
        self._ending = True
        for pending in [one for group in self._pending.values() for one in group]:
            pending.fail(PoolClosedError("stopped"))

    async def wait_released(self, seconds: float) -> None:
        """Wait, ``seconds`` at most, until every claim and release has been answered."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._claim_batcher.wait_idle()
                memberships = self._table.memberships()
                under_way = [one.departure.over for one in memberships if one.departure]
                if under_way:
                    await asyncio.wait(under_way)

    def _released(self, membership: Membership[Connection], emptied: bool | None) -> None:
        """A membership has no claim any more; ``emptied`` as Redis says it of the release."""
        self._drop(membership)
        self._last_ones.end(membership.depart(), emptied)

    def _evict(self, membership: Membership[Connection]) -> None:
        """Another connection owns the id now; there is no release."""
        leaves = membership.departure is not None
        if not leaves:
            membership.depart().end(emptied=False)
        self._drop(membership)
        self.releases.remember(membership.namespace)
        self._fights.note(membership)
        if membership.home or not leaves:
            self._table.lose(membership)

    def _drop(self, membership: Membership[Connection]) -> None:
        self._table.discard(membership)
        if membership.claim is not None:
            self._accounts.dropped(membership)
            self._namespaces.leave(membership.namespace)
            self.former.note(membership.namespace, membership.id, membership.claim)
            membership.claim = None

    async def register_all(self, incarnation: str, keep: Keep) -> None:
        """Register all that is owned anew; see :meth:`.ClaimBatcher.register_all`."""
        await self._claim_batcher.register_all(incarnation, keep)

    async def assert_namespace(self, links: Links, namespace: str, incarnation: str) -> None:
        """Register the owned claims of one namespace once more."""
        await self._reassertion.namespace(links, namespace, incarnation)
