"""Who owns what: claims and releases of this node's connections, in batches, under its lease.

A connection is *claiming*, known by its nonce, before its claim is sent; what arrives for it then
waits in its outbox, a takeover of that nonce is remembered, and both are settled by the reply.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from cluster_pool.backplane.link import Link
from cluster_pool.backplane.registry import Registry, batches
from cluster_pool.backplane.session import Session
from cluster_pool.cluster.assertion import Assertion
from cluster_pool.cluster.lease import Lease
from cluster_pool.cluster.namespaces import Namespaces
from cluster_pool.core.claims import Claim
from cluster_pool.core.closing import TAKEN_OVER
from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.ids import base36, shown
from cluster_pool.core.keys import Keys
from cluster_pool.core.statistics import Counters
from cluster_pool.core.takeovers import Takeovers
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ConnectionClosedError,
    IdTakenError,
    MembershipLimitError,
    PoolClosedError,
)
from cluster_pool.local.connection import Connection
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool.membership")

GATHER = 0.005
"""Seconds at least from one flush to the next: in a storm they fill, whatever the loop's turns."""
IN_FLIGHT = 4
"""Flushes at most that Redis has not answered; what comes meanwhile waits for the next."""


@dataclass(slots=True, eq=False)
class Claiming:
    """A claim on its way; ``won`` ends well when the connection is in the table."""

    connection: Connection
    nonce: str
    takeover: bool
    deadline: float
    won: asyncio.Future[None]
    taken: bool = False
    sent: bool = False
    first: int = 0
    """Redis time in µs of the first attempt whose reply was lost."""


@dataclass(slots=True, eq=False)
class Stray:
    """A claim that was won when nobody wanted it any more; it leaves as a connection does."""

    namespace: str
    id: str
    claim: Any
    departure: "asyncio.Future[bool] | None" = None


Leaving = Connection | Stray


class Membership:
    """The claims of one node. The table holds whom it owns; this holds whom it wants or leaves."""

    def __init__(
        self,
        session: Session,
        registry: Registry,
        keys: Keys,
        table: ConnectionTable,
        limits: Limits,
        timing: Timing,
        counters: Counters,
        on_takeover: Callable[[Connection], None],
        *,
        verify: bool,
    ) -> None:
        self._verify = verify
        self._to_verify: list[Connection] = []
        self._session = session
        self._registry = registry
        self._table = table
        self._timing = timing
        self._counters = counters
        self._on_takeover = on_takeover
        self._takeovers = Takeovers()
        self._room = limits.namespace_members
        self._namespaces = Namespaces(session, registry, keys, timing, limits.node_namespaces)
        self._claiming: dict[tuple[str, str], list[Claiming]] = {}
        self._nonces = 0
        self._to_claim: list[Claiming] = []
        self._to_release: list[Leaving] = []
        self._unreleased: list[Leaving] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_flush: asyncio.Handle | None = None
        self._last_flush = -GATHER
        self._flights = 0
        self._leaving = False
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._lease: Lease
        self._assertion: Assertion

    def under(self, lease: Lease) -> None:
        """Set the lease that guards everything here; whoever makes both calls this once."""
        self._lease = lease
        self._assertion = Assertion(
            self._session, self._registry, self._table, self._timing, lease, self._evict
        )

    async def stop(self) -> None:
        """End whatever is still under way; the connections are released before this."""
        await self._namespaces.stop()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._next_flush is not None:
            self._next_flush.cancel()

    # -- what the router asks --------------------------------------------------------------

    def find(self, namespace: str, id: str, nonce: str) -> Connection | None:
        """The connection for which an item was routed: the claim it names, else the owner."""
        if self._claiming:
            for claiming in self._claiming.get((namespace, id), ()):
                if claiming.nonce == nonce:
                    return claiming.connection
        return self._table.get(namespace, id)

    def taken(self, namespace: str, id: str, standing: Claim) -> None:
        """A claim was replaced; if it was one of ours, its connection is closed with 4409.

        Where strangers must not be believed, the registry is asked first.
        """
        if standing.start != self._session.start_name:
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
            self._verify_later(connection)
        else:
            self._evict(connection)

    def _verify_later(self, connection: Connection) -> None:
        self._to_verify.append(connection)
        self._schedule()

    def coming(self) -> bool:
        """Whether claims are on their way."""
        return bool(self._claiming)

    def namespaces(self) -> list[str]:
        """The namespaces in which this node holds connections."""
        return self._namespaces.held()

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
        Cancelling lets the claim finish and then gives it up.

        Raises:
            IdTakenError: the id has a living owner and may not be taken over, or a newer
                connection took it over at once.
            MembershipLimitError: the namespace or this node is full.
            ConnectionClosedError: the connection was closed meanwhile.
            BackplaneUnavailableError: Redis did not say in time; nothing is owned, and what may
                have been claimed is given up as soon as Redis can be reached.
        """
        task = self._own(self._claim(connection, takeover, deadline))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(lambda done: self._unwanted(connection, done))
            raise

    def _unwanted(self, connection: Connection, claim: asyncio.Task[None]) -> None:
        if not claim.cancelled() and claim.exception() is None:
            self.release(connection)

    async def _claim(self, connection: Connection, takeover: bool, deadline: float) -> None:
        namespace = connection.namespace
        key = (namespace, connection.id)
        if self._leaving:
            raise PoolClosedError("stopped")
        self._namespaces.check_room(namespace)
        self._nonces += 1
        claiming = Claiming(
            connection,
            base36(self._nonces),
            takeover,
            deadline,
            asyncio.get_running_loop().create_future(),
        )
        self._namespaces.enter(namespace)
        self._claiming.setdefault(key, []).append(claiming)
        try:
            await self._namespaces.subscribed(namespace, deadline)
            self._to_claim.append(claiming)
            self._schedule()
            await self._answered(claiming)
        except BaseException:
            self._namespaces.leave(namespace)
            raise
        finally:
            siblings = self._claiming[key]
            siblings.remove(claiming)
            if not siblings:
                del self._claiming[key]

    async def _answered(self, claiming: Claiming) -> None:
        """Wait for the claim to be settled, until its deadline; a later reply finds a stray."""
        try:
            async with asyncio.timeout_at(claiming.deadline):
                await claiming.won
        except TimeoutError:
            raise BackplaneUnavailableError(
                "Redis did not answer in time", maybe_executed=claiming.sent
            ) from None

    def _settle(self, claiming: Claiming, won: bool, claim: Claim | None) -> None:
        """The registry has answered: the connection is owned now, or it is not."""
        connection = claiming.connection
        if claim is None:
            _fail(claiming, MembershipLimitError("namespace_members", self._room))
            return
        older = self._table.get(connection.namespace, connection.id)
        overtaken = (
            older is not None and older.claim is not None and older.claim.time > claim.time
        ) or (claiming.taken and not self._verify)
        if not won:
            _fail(claiming, IdTakenError(connection.namespace, connection.id))
        elif overtaken:
            self._note_takeover(connection)
            _fail(claiming, IdTakenError(connection.namespace, connection.id))
        elif claiming.won.done() or connection.closed:
            self._abandon(Stray(connection.namespace, connection.id, claim))
            _fail(claiming, ConnectionClosedError(connection.close_code or 1006))
        else:
            connection.claim = claim
            connection.departure = None
            self._table.add(connection)
            self._counters.accepted += 1
            if older is not None:
                self._evict(older)
            claiming.won.set_result(None)
            if claiming.taken:
                self._verify_later(connection)

    def _abandon(self, stray: Stray) -> None:
        """Nobody wants what was won: release it as if it had been held."""
        self._namespaces.enter(stray.namespace)
        self.release(stray)

    # -- releasing -------------------------------------------------------------------------

    def release(self, connection: Leaving) -> "asyncio.Future[bool]":
        """Give up a connection's id; the future gives whether that emptied the namespace.

        While Redis cannot be reached the release waits for it; the future then ends late.
        """
        departure: asyncio.Future[bool] | None = connection.departure
        if departure is None:
            departure = asyncio.get_running_loop().create_future()
            connection.departure = departure
            if connection.claim is None:
                self._departed(connection, emptied=False)
            else:
                self._to_release.append(connection)
                self._schedule()
        return departure

    def retry_releases(self) -> None:
        """Try again what could not be released; the same claim is never released twice."""
        if self._unreleased:
            self._to_release += self._unreleased
            self._unreleased = []
            self._schedule()

    async def leave(self, seconds: float) -> None:
        """Refuse who is still claiming; wait until every claim and release has been answered.

        A claim that was on its way is given up once it is registered. ``seconds`` at most.
        """
        self._leaving = True
        for claiming in [one for group in self._claiming.values() for one in group]:
            _fail(claiming, PoolClosedError("stopped"))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._next_flush is not None or self._tasks:
                    self._start_flush()
                    await asyncio.sleep(0)
                    if self._tasks:
                        await asyncio.wait(self._tasks)
                leaving = [one.departure for one in self._table.connections() if one.departure]
                if leaving:
                    await asyncio.wait(leaving)

    def _departed(self, connection: Leaving, *, emptied: bool) -> None:
        listed = self._table.get(connection.namespace, connection.id) is connection
        if isinstance(connection, Connection):
            self._table.discard(connection)
        if listed or connection.claim is not None:
            self._namespaces.leave(connection.namespace)
        connection.claim = None
        if connection.departure is not None and not connection.departure.done():
            connection.departure.set_result(emptied)

    def _evict(self, connection: Connection) -> None:
        """Another connection owns the id now: close this one, and release nothing."""
        connection.claim = None
        self._table.discard(connection)
        self._namespaces.leave(connection.namespace)
        self._note_takeover(connection)
        connection.begin_close(TAKEN_OVER, "taken over")

    def _note_takeover(self, connection: Connection) -> None:
        self._counters.taken_over += 1
        now = asyncio.get_running_loop().time()
        if self._takeovers.note(connection.namespace, connection.id, now):
            self._counters.takeover_fights += 1
            log.warning(
                "id %s in %s is taken over again and again: two clients use it",
                shown(connection.id),
                shown(connection.namespace),
            )
        self._on_takeover(connection)

    # -- batches ---------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._next_flush is None and self._flights < IN_FLIGHT:
            loop = asyncio.get_running_loop()
            due = self._last_flush + GATHER
            if due <= loop.time():
                self._next_flush = loop.call_soon(self._start_flush)
            else:
                self._next_flush = loop.call_at(due, self._start_flush)

    def _start_flush(self) -> None:
        if self._next_flush is None:
            return
        self._next_flush.cancel()
        self._next_flush = None
        self._last_flush = asyncio.get_running_loop().time()
        claims, self._to_claim = [one for one in self._to_claim if not one.won.done()], []
        releases, self._to_release = self._to_release, []
        doubtful, self._to_verify = self._to_verify, []
        if claims or releases or doubtful:
            self._flights += 1
            self._own(self._fly(claims, releases, doubtful))

    async def _fly(
        self, claims: list[Claiming], releases: list[Leaving], doubtful: list[Connection]
    ) -> None:
        try:
            await self._flush(claims, releases, doubtful)
        finally:
            self._flights -= 1
        if self._to_claim or self._to_release or self._to_verify:
            self._schedule()

    async def _flush(
        self, claims: list[Claiming], releases: list[Leaving], doubtful: list[Connection]
    ) -> None:
        loop = asyncio.get_running_loop()
        latest = max((claiming.deadline for claiming in claims), default=0.0)
        try:
            link = await self._leased_link(latest or loop.time() + self._timing.timeout)
        except BackplaneUnavailableError as error:
            for claiming in claims:
                _fail(claiming, error)
            self._unreleased += releases
            return
        self._enter()
        try:
            deadline = loop.time() + self._timing.timeout
            work: list[Coroutine[Any, Any, None]] = [
                self._namespaces.note(link, self._lease.incarnation, deadline),
                *self._claim_batches(link, claims),
                *self._release_batches(link, releases, deadline),
                self._assertion.doubtful(link, doubtful),
            ]
            await asyncio.gather(*work)
        finally:
            self._leave()

    async def _leased_link(self, deadline: float) -> Link:
        """The link, once the lease is held and everything owned stands under it."""
        try:
            async with asyncio.timeout_at(deadline):
                await self._lease.wait_held()
        except TimeoutError:
            raise BackplaneUnavailableError("this node has no lease: Redis is away") from None
        return await self._session.link_by(deadline)

    def _claim_batches(
        self, link: Link, claims: list[Claiming]
    ) -> Iterator[Coroutine[Any, Any, None]]:
        groups: dict[tuple[str, bool, int], list[Claiming]] = {}
        times_seen: dict[tuple[str, str], int] = {}
        for claiming in claims:
            connection = claiming.connection
            key = (connection.namespace, connection.id)
            turn = times_seen[key] = times_seen.get(key, -1) + 1
            groups.setdefault((connection.namespace, claiming.takeover, turn), []).append(claiming)
        for group in groups.values():
            for batch in batches(group):
                yield self._claim_batch(link, batch, "")

    def _claim_batch(
        self, link: Link, batch: list[Claiming], dead: str
    ) -> Coroutine[Any, Any, None]:
        deadline = max(claiming.deadline for claiming in batch)
        now = asyncio.get_running_loop().time()
        clock = self._session.clock
        namespace, takeover = batch[0].connection.namespace, batch[0].takeover
        replies = self._registry.claim(
            link,
            namespace,
            self._lease.incarnation,
            [(one.connection.id, one.nonce, one.first) for one in batch],
            clock.at(min(deadline, now + self._lease.seconds_left())),
            takeover=takeover,
            dead=dead,
            room=self._room,
        )
        for claiming in batch:
            claiming.sent = True

        async def read() -> None:
            try:
                answers = await replies
            except BackplaneUnavailableError as error:
                if self._session.link is link:
                    for claiming in batch:
                        _fail(claiming, error)
                else:
                    self._claim_again(batch, clock.at(now))
                return
            lost: list[tuple[Claiming, Claim]] = []
            for claiming, (won, claim) in zip(batch, answers, strict=True):
                if won or claim is None or claim.incarnation == dead:
                    self._settle(claiming, won, claim)
                else:
                    lost.append((claiming, claim))
            if lost:
                await self._claim_from_ghosts(lost, deadline)

        return read()

    def _claim_again(self, batch: list[Claiming], attempted: int) -> None:
        """The link is gone, and the reply with it: try over the next one, until the deadline."""
        for claiming in batch:
            claiming.first = claiming.first or attempted
        self._to_claim += batch
        self._schedule()

    async def _claim_from_ghosts(self, lost: list[tuple[Claiming, Claim]], deadline: float) -> None:
        """An owner whose lease is gone does not keep an id from a newcomer."""
        try:
            living = await self._registry.living(deadline)
            link = await self._session.link_by(deadline)
        except BackplaneUnavailableError as error:
            for claiming, _ in lost:
                _fail(claiming, error)
            return
        by_ghost: dict[str, list[Claiming]] = {}
        for claiming, claim in lost:
            if claim.incarnation in living:
                self._settle(claiming, False, claim)
            else:
                by_ghost.setdefault(claim.incarnation, []).append(claiming)
        await asyncio.gather(
            *[self._claim_batch(link, batch, ghost) for ghost, batch in by_ghost.items()]
        )

    def _release_batches(
        self, link: Link, releases: list[Leaving], deadline: float
    ) -> Iterator[Coroutine[Any, Any, None]]:
        groups: dict[str, list[Leaving]] = {}
        for connection in releases:
            if connection.claim is None:
                self._departed(connection, emptied=False)
            else:
                groups.setdefault(connection.namespace, []).append(connection)
        for group in groups.values():
            for batch in batches(group):
                yield self._release_batch(link, batch, deadline)

    def _release_batch(
        self, link: Link, batch: list[Leaving], deadline: float
    ) -> Coroutine[Any, Any, None]:
        claims = [(connection.id, connection.claim) for connection in batch]
        reply = self._registry.release(link, batch[0].namespace, claims, deadline)

        async def read() -> None:
            try:
                emptied = await reply
            except BackplaneUnavailableError:
                self._unreleased += batch
                return
            for connection, (_, claim) in zip(batch, claims, strict=True):
                self._departed(connection, emptied=str(claim) == emptied)

        return read()

    # -- rejoining -------------------------------------------------------------------------

    async def rejoin(self, incarnation: str) -> None:
        """Register everything that is owned under a new incarnation, with its own tokens.

        What another node won meanwhile is closed with 4409.
        """
        await self._idle.wait()
        deadline = asyncio.get_running_loop().time() + self._timing.timeout
        link = await self._session.link_by(deadline)
        releases, self._unreleased = self._unreleased, []
        await asyncio.gather(*self._release_batches(link, releases, deadline))
        await self._namespaces.note(link, incarnation, deadline)
        await self._assertion.everything(link, incarnation)

    async def assert_namespace(self, link: Link, namespace: str, incarnation: str) -> None:
        """Register what is owned in one namespace once more."""
        await self._assertion.namespace(link, namespace, incarnation)

    # -- housekeeping ----------------------------------------------------------------------

    def _enter(self) -> None:
        self._busy += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._idle.set()

    def _own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _fail(claiming: Claiming, error: Exception) -> None:
    if claiming.won.done():
        return
    if isinstance(error, BackplaneUnavailableError):
        maybe = error.maybe_executed or claiming.sent
        own = BackplaneUnavailableError(str(error), maybe_executed=maybe)
        own.__cause__ = error
        error = own
    claiming.won.set_exception(error)
