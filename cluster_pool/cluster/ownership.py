"""Who owns what: what becomes of this node's connections when they claim, lose, or leave an id.

A connection is *claiming*, known by its nonce, before its claim is sent; what arrives for it then
waits in its outbox, a takeover of that nonce is remembered, and both are settled by the reply.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from cluster_pool.backplane.generation import Generation
from cluster_pool.backplane.registry import Registry
from cluster_pool.backplane.shard import Shard
from cluster_pool.cluster.claim_batcher import ClaimBatcher, OrphanedClaim, PendingClaim, Releasable
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.lease_keeper import Keep
from cluster_pool.cluster.namespaces import Namespaces
from cluster_pool.cluster.reassertion import Reassertion
from cluster_pool.cluster.standing import Standing
from cluster_pool.core.claims import Claim, FormerClaims
from cluster_pool.core.closing import TAKEN_OVER
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.ids import base36, shown
from cluster_pool.core.keys import Keys
from cluster_pool.core.quiet import Quiet
from cluster_pool.core.statistics import Counters
from cluster_pool.core.takeovers import Takeovers
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ConnectionClosedError,
    IdTakenError,
    MembershipLimitError,
    PoolClosedError,
)
from cluster_pool.local import closing
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import kick
from cluster_pool.local.table import ConnectionTable

FORMER = 1_000
"""Claims that are remembered after their end, in a cluster with a secret."""

log = logging.getLogger("cluster_pool.membership")

ASKED = 0.9
"""Of the time that a claim has left, it waits for the owner's word no more than this part."""


class Ownership:
    """The claims of one node. The table holds whom it owns; this holds whom it wants or leaves."""

    def __init__(
        self,
        shard: Shard,
        registry: Registry,
        keys: Keys,
        table: ConnectionTable,
        limits: Limits,
        timing: Timing,
        counters: Counters,
        lease: LeaseState,
        on_takeover: Callable[[Connection], None],
        standing: Standing,
        *,
        verify: bool,
    ) -> None:
        self._verify = verify
        self._shard = shard
        self._table = table
        self._counters = counters
        self._on_takeover = on_takeover
        self.standing = standing
        self._takeovers = Takeovers()
        self._quiet = Quiet()
        self._room = limits.namespace_members
        self._namespaces = Namespaces(shard, registry, keys, timing, limits.node_namespaces)
        self._claiming: dict[tuple[str, str], list[PendingClaim]] = {}
        self._nonces = 0
        self.newest = 0
        """The Redis time in µs of the latest claim that was won here."""
        self.former = FormerClaims(FORMER if verify else 0)
        self._leaving = False
        self._reassertion = Reassertion(
            shard, registry, self._namespaces, table, timing, lease, self._evict
        )
        self._claim_batcher = ClaimBatcher(
            shard,
            registry,
            self._namespaces,
            timing,
            self._room,
            lease,
            self._reassertion,
            self._settle,
            self._departed,
        )

    async def stop(self) -> None:
        """End whatever is still under way; the connections are released before this."""
        await self.standing.stop()
        await self._namespaces.stop()
        await self._claim_batcher.stop()
        error = BackplaneUnavailableError(
            "not released: stopped while Redis could not be reached; its lease runs out",
            maybe_executed=True,
        )
        for connection in self._table.connections():
            departure = connection.departure
            if departure is not None and not departure.done():
                departure.set_exception(error)
                departure.exception()  # taken note of, if nobody waits for it

    # -- what the router asks --------------------------------------------------------------

    def find(self, namespace: str, id: str, claim: str) -> Connection | None:
        """The connection for which an item was routed: the claim it names, else the owner.

        A claim of which we have not heard yet is known by its nonce alone.
        """
        if self._claiming:
            nonce = claim.rpartition(":")[2]
            for claiming in self._claiming.get((namespace, id), ()):
                if claiming.nonce == nonce:
                    return claiming.connection
        return self._table.get(namespace, id)

    def taken(self, namespace: str, id: str, standing: Claim) -> None:
        """A claim was replaced; if it was one of ours, its connection is closed with 4409.

        Where strangers must not be believed, the registry is asked first.
        """
        if standing.start != self._shard.start_name:
            return
        for claiming in self._claiming.get((namespace, id), ()):
            if claiming.nonce == standing.nonce and not claiming.won.done():
                claiming.taken = True
                return
        connection = self._table.get(namespace, id)
        claim: Claim | None = connection.claim if connection is not None else None
        if connection is None or claim is None or claim.nonce != standing.nonce:
            return
        if standing.rejoin < claim.rejoin:
            return  # it was asserted since then, and kept
        if self._verify:
            self._claim_batcher.verify(connection)
        else:
            self._evict(connection)

    def coming(self) -> bool:
        """Whether claims are on their way."""
        return bool(self._claiming)

    def namespaces(self) -> list[str]:
        """The namespaces in which this node holds connections."""
        return self._namespaces.held()

    def holds(self, namespace: str) -> bool:
        """Whether it is one of them."""
        return self._namespaces.holds(namespace)

    def take_doubted(self) -> set[str]:
        """Namespaces, held or not, in which a claim was not found when it was given up."""
        return self._claim_batcher.take_doubted()

    def owned(self, namespace: str) -> dict[str, Claim]:
        """The claims that this node holds in a namespace, by id; those being released too."""
        members = self._table.namespace(namespace) or {}
        return {id: one.claim for id, one in members.items() if one.claim is not None}

    def knows(self, namespace: str, id: str, nonce: str) -> bool:
        """Whether a claim is held here, or on its way."""
        if any(one.nonce == nonce for one in self._claiming.get((namespace, id), ())):
            return True
        connection = self._table.get(namespace, id)
        return (
            connection is not None
            and connection.claim is not None
            and (connection.claim.nonce == nonce)
        )

    # -- claiming --------------------------------------------------------------------------

    async def claim(self, connection: Connection, *, takeover: bool, deadline: float) -> None:
        """Become the owner of a connection's id; the connection is then in the table.

        A claim whose reply was lost with the link is tried again, and found if it stands.
        Cancelling gives it up, or lets it finish first if it is on its way. A takeover of an id
        that clients fight for waits before it is sent: see :class:`Takeovers`.

        Raises:
            IdTakenError: the id has a living owner and may not be taken over.
            MembershipLimitError: the namespace or this node is full.
            ConnectionClosedError: a newer connection took the id over at once (4409: this one is
                closed), the connection was closed meanwhile, or its client has gone.
            BackplaneUnavailableError: Redis did not say in time, or has been away for a second
                already; nothing is owned, and what may have been claimed is given up as soon as
                Redis can be reached.
        """
        self._nonces += 1
        won = asyncio.get_running_loop().create_future()
        claiming = PendingClaim(connection, base36(self._nonces), takeover, deadline, won)
        task = self._claim_batcher.own(self._claim(claiming))
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError:
            if not claiming.sent:
                claiming.fail(ConnectionClosedError())
            task.add_done_callback(lambda done: self._unwanted(connection, done))
            raise
        if task.cancelled():  # by the stop, not by the caller
            raise PoolClosedError("stopped")
        task.result()

    def _unwanted(self, connection: Connection, claim: asyncio.Task[None]) -> None:
        if not claim.cancelled() and claim.exception() is None:
            self.release(connection)

    async def _claim(self, claiming: PendingClaim) -> None:
        if self._leaving:
            raise PoolClosedError("stopped")
        key = (claiming.connection.namespace, claiming.connection.id)
        self._claiming.setdefault(key, []).append(claiming)
        try:
            await self._shard.connected_soon(claiming.deadline)
            if claiming.takeover:
                await self._slow_down(claiming)
            await self._register(claiming)
        finally:
            siblings = self._claiming[key]
            siblings.remove(claiming)
            if not siblings:
                del self._claiming[key]

    async def _slow_down(self, claiming: PendingClaim) -> None:
        """Make the claim of an id that is fought for wait, so that a fight costs little."""
        namespace, id = claiming.connection.namespace, claiming.connection.id
        now = asyncio.get_running_loop().time()
        delay = self._takeovers.delay(namespace, id, now, claiming.deadline)
        if delay:
            self._counters.delayed_claims += 1
            await asyncio.wait((claiming.won,), timeout=delay)

    async def _register(self, claiming: PendingClaim) -> None:
        connection = claiming.connection
        self._namespaces.check_room(connection.namespace)
        self._namespaces.enter(connection.namespace)
        try:
            await self._namespaces.subscribed(connection.namespace, claiming.deadline)
            if closing.is_lost(connection):  # its client has gone, and must take the id from nobody
                raise ConnectionClosedError
            if not claiming.won.done():
                self._claim_batcher.claim(claiming)
            await self._answered(claiming)
        except BaseException as error:
            unanswered = isinstance(error, BackplaneUnavailableError)
            self._namespaces.leave(connection.namespace, unanswered=unanswered)
            raise

    async def _answered(self, claiming: PendingClaim) -> None:
        """Wait for the claim to be settled, until its deadline; a later reply finds a stray.

        Settled and late in one turn of the loop is settled: what was won is owned already.
        """
        try:
            async with asyncio.timeout_at(claiming.deadline):
                await claiming.won
        except TimeoutError:
            if not claiming.won.cancelled():
                return claiming.won.result()
            raise self._shard.in_vain(maybe_executed=claiming.sent) from None

    def _settle(self, claiming: PendingClaim, won: bool, claim: Claim | None) -> None:
        """The registry has answered: the connection is owned now, or it is not."""
        connection = claiming.connection
        if claim is None:
            claiming.fail(MembershipLimitError("namespace_members", self._room))
            return
        older = self._table.get(connection.namespace, connection.id)
        overtaken = (
            older is not None and older.claim is not None and older.claim.time > claim.time
        ) or (claiming.taken and not self._verify)
        if not won and not claiming.takeover:
            self._rejected(claiming, claim)
        elif not won or overtaken:
            self._overtaken(claiming)
        elif claiming.won.done() or connection.closed:
            self._abandon(OrphanedClaim(connection.namespace, connection.id, claim))
            claiming.fail(ConnectionClosedError(connection.close_code or 1006))
        else:
            connection.claim = claim
            self.newest = max(self.newest, claim.time)
            connection.departure = None
            self._table.add(connection)
            self._counters.accepted += 1
            if older is not None:
                self._evict(older)
            claiming.won.set_result(None)
            if claiming.taken:
                self._claim_batcher.verify(connection)

    def _rejected(self, claiming: PendingClaim, standing: Claim) -> None:
        """Another's claim stands; before that is the last word its owner is asked, once."""
        if claiming.asked:
            claiming.fail(IdTakenError(claiming.connection.namespace, claiming.connection.id))
        elif not claiming.won.done():
            claiming.asked = True
            self._claim_batcher.own(self._ask_owner(claiming, standing))

    async def _ask_owner(self, claiming: PendingClaim, standing: Claim) -> None:
        """Claim again if the connection that stands has lost its client, and else give up.

        A claim that has no time to wait for the owner's word is answered before its deadline.
        """
        namespace, id = claiming.connection.namespace, claiming.connection.id
        left = claiming.deadline - asyncio.get_running_loop().time()
        gone = self.standing.question(namespace, id, standing)
        await asyncio.wait(
            (gone, claiming.won), timeout=left * ASKED, return_when=asyncio.FIRST_COMPLETED
        )
        if gone.done() and not gone.cancelled() and gone.result() and not claiming.won.done():
            self._claim_batcher.claim(claiming)
        else:
            claiming.fail(IdTakenError(namespace, id))

    def _overtaken(self, claiming: PendingClaim) -> None:
        """A newer claim stands already: what became of this one is what becomes of any older."""
        if not claiming.won.done():
            self._note_takeover(claiming.connection)
            kick(claiming.connection, TAKEN_OVER, "taken over")
            claiming.fail(ConnectionClosedError(TAKEN_OVER, "taken over"))

    def _abandon(self, stray: OrphanedClaim) -> None:
        """Nobody wants what was won: release it as if it had been held."""
        self._namespaces.enter(stray.namespace)
        self.release(stray)

    # -- releasing -------------------------------------------------------------------------

    def release(self, connection: Releasable) -> "asyncio.Future[bool]":
        """Give up a connection's id; the future gives whether that emptied the namespace.

        While Redis cannot be reached the release waits for it; the future then ends late.
        """
        departure: asyncio.Future[bool] | None = connection.departure
        if departure is None:
            departure = asyncio.get_running_loop().create_future()
            connection.departure = departure
            if connection.claim is None:
                self._departed(connection, False)
            else:
                self._claim_batcher.release(connection)
        return departure

    def retry_releases(self) -> None:
        """Try again what could not be released."""
        self._claim_batcher.retry_releases()

    async def leave(self, seconds: float) -> None:
        """Refuse who is still claiming; wait until every claim and release has been answered.

        A claim that was on its way is given up once it is registered. ``seconds`` at most.
        """
        self._leaving = True
        for claiming in [one for group in self._claiming.values() for one in group]:
            claiming.fail(PoolClosedError("stopped"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._claim_batcher.settled()
                leaving = [one.departure for one in self._table.connections() if one.departure]
                if leaving:
                    await asyncio.wait(leaving)

    def _departed(self, connection: Releasable, emptied: bool) -> None:
        listed = self._table.get(connection.namespace, connection.id) is connection
        if isinstance(connection, Connection):
            self._table.discard(connection)
        if listed or connection.claim is not None:
            self._namespaces.leave(connection.namespace)
        self.former.note(connection.namespace, connection.id, connection.claim)
        connection.claim = None
        if connection.departure is not None and not connection.departure.done():
            connection.departure.set_result(emptied)

    def _evict(self, connection: Connection) -> None:
        """Another connection owns the id now: close this one, and release nothing."""
        self.former.note(connection.namespace, connection.id, connection.claim)
        connection.claim = None
        self._table.discard(connection)
        self._namespaces.leave(connection.namespace)
        self._note_takeover(connection)
        kick(connection, TAKEN_OVER, "taken over")

    def _note_takeover(self, connection: Connection) -> None:
        self._counters.taken_over += 1
        now = asyncio.get_running_loop().time()
        if self._takeovers.note(connection.namespace, connection.id, now):
            self._counters.takeover_fights += 1
            times = self._quiet.due((connection.namespace, connection.id), now)
            if times:
                log.info(
                    "id %s in %s is taken over again and again (%d times more): two clients use it",
                    shown(connection.id),
                    shown(connection.namespace),
                    times,
                )
        self._on_takeover(connection)

    # -- registering again -----------------------------------------------------------------

    async def register_all(self, incarnation: str, keep: Keep) -> None:
        """Register everything that is owned under a new incarnation, with its own tokens.

        What another node won meanwhile is closed with 4409. ``keep`` renews the lease meanwhile.
        """
        await self._claim_batcher.register_all(incarnation, keep)

    async def assert_namespace(
        self, generation: Generation, namespace: str, incarnation: str
    ) -> None:
        """Register what is owned in one namespace once more."""
        await self._reassertion.namespace(generation, namespace, incarnation)
