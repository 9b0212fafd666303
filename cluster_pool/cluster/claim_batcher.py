"""Takes claims, releases and doubts to the registry: in batches, under the lease.

What comes within ``GATHER`` of a flush, or while ``IN_FLIGHT`` of them are unanswered, goes with
the next one: a storm of connects is a few calls and not one for each.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

from cluster_pool.backplane.generation import Generation
from cluster_pool.backplane.registry import PAGE, ClaimReply, Registry, batches
from cluster_pool.backplane.script_words import CLAIMED, LATE, TAKEN
from cluster_pool.backplane.shard import Shard
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.lease_keeper import Keep
from cluster_pool.cluster.namespaces import Namespaces
from cluster_pool.cluster.reassertion import Reassertion
from cluster_pool.core.claims import Claim
from cluster_pool.core.config import Timing
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ClusterPoolError,
    ConnectionClosedError,
)
from cluster_pool.local import closing
from cluster_pool.local.connection import Connection

log = logging.getLogger("cluster_pool.membership")

GATHER = 0.005
"""Seconds at least from one flush to the next: in a storm they fill, whatever the loop's turns."""
IN_FLIGHT = 4
"""Flushes at most that Redis has not answered; what comes meanwhile waits for the next."""

MOST_DOUBTED = 1000
"""Namespaces that wait for a closer look."""


@dataclass(slots=True, eq=False)
class PendingClaim:
    """A claim on its way; ``won`` ends well when the connection is in the table."""

    connection: Connection
    nonce: str
    takeover: bool
    deadline: float
    won: asyncio.Future[None]
    taken: bool = False
    sent: bool = False
    asked: bool = False
    """Whether the owner was asked for a sign of life; once is enough."""
    first: int = 0
    """Redis time in µs of the first attempt whose reply was lost."""

    def fail(self, error: Exception) -> None:
        """Let it end with an error, unless it has ended."""
        if self.won.done():
            return
        if isinstance(error, BackplaneUnavailableError):
            maybe = error.maybe_executed or self.sent
            own = BackplaneUnavailableError(str(error), maybe_executed=maybe)
            own.__cause__ = error
            error = own
        self.won.set_exception(error)
        self.won.exception()  # taken note of: whoever waits for it may be waiting elsewhere


@dataclass(slots=True, eq=False)
class OrphanedClaim:
    """A claim that was won when nobody wanted it any more; it leaves as a connection does."""

    namespace: str
    id: str
    claim: Any
    departure: "asyncio.Future[bool] | None" = None


Releasable = Connection | OrphanedClaim


class ClaimBatcher:
    """What one node wants of the registry, on its way there.

    Args:
        room: members that a namespace may have.
        settle: told of each claim whether it won, and which claim stands (None: there is no room).
        departed: told of each that has left, and whether that emptied its namespace.
    """

    def __init__(
        self,
        shard: Shard,
        registry: Registry,
        namespaces: Namespaces,
        timing: Timing,
        room: int,
        lease: LeaseState,
        reassertion: Reassertion,
        settle: Callable[[PendingClaim, bool, Claim | None], None],
        departed: Callable[[Releasable, bool], None],
    ) -> None:
        self._shard = shard
        self._registry = registry
        self._namespaces = namespaces
        self._timing = timing
        self._room = room
        self._lease = lease
        self._reassertion = reassertion
        self._settle = settle
        self._departed = departed
        self._to_claim: list[PendingClaim] = []
        self._to_release: list[Releasable] = []
        self._to_verify: list[Connection] = []
        self._unreleased: list[Releasable] = []
        self._doubted: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_flush: asyncio.Handle | None = None
        self._last_flush = -GATHER
        self._flights = 0
        self._busy = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def stop(self) -> None:
        """End whatever is still under way."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._next_flush is not None:
            self._next_flush.cancel()

    def own(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Do something that :meth:`settled` waits for, and :meth:`stop` cancels."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settled(self) -> None:
        """Wait until nothing waits for a flush, and nothing is under way."""
        while self._next_flush is not None or self._tasks:
            self._start_flush()
            await asyncio.sleep(0)
            if self._tasks:
                await asyncio.wait(self._tasks)

    # -- gathering -------------------------------------------------------------------------

    def claim(self, claiming: PendingClaim) -> None:
        """Register with the next flush."""
        self._to_claim.append(claiming)
        self._schedule()

    def release(self, leaving: Releasable) -> None:
        """Give up with the next flush; while Redis is away it waits for :meth:`retry_releases`."""
        self._to_release.append(leaving)
        self._schedule()

    def retry_releases(self) -> None:
        """Try again what could not be released; the same claim is never released twice."""
        if self._unreleased:
            self._to_release += self._unreleased
            self._unreleased = []
            self._schedule()

    def take_doubted(self) -> set[str]:
        """Namespaces where a release found nothing: the claim may have been lost, not its count."""
        doubted, self._doubted = self._doubted, set()
        return doubted

    def verify(self, connection: Connection) -> None:
        """Ask with the next flush whether its claim still stands."""
        self._to_verify.append(connection)
        self._schedule()

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
            self.own(self._fly(claims, releases, doubtful))

    async def _fly(
        self, claims: list[PendingClaim], releases: list[Releasable], doubtful: list[Connection]
    ) -> None:
        try:
            await self._flush(claims, releases, doubtful)
        finally:
            self._flights -= 1
        if self._to_claim or self._to_release or self._to_verify:
            self._schedule()

    async def _flush(
        self, claims: list[PendingClaim], releases: list[Releasable], doubtful: list[Connection]
    ) -> None:
        loop = asyncio.get_running_loop()
        latest = max((claiming.deadline for claiming in claims), default=0.0)
        try:
            generation = await self._leased(latest or loop.time() + self._timing.timeout)
        except ClusterPoolError as error:
            for claiming in claims:
                claiming.fail(error)
            self._unreleased += releases
            return
        self._enter()
        try:
            deadline = loop.time() + self._timing.timeout
            work: list[Coroutine[Any, Any, None]] = [
                self._namespaces.note(generation, self._lease.incarnation, deadline),
                *self._claim_batches(generation, claims),
                *self._release_batches(generation, releases, deadline),
                self._reassertion.doubtful(generation, doubtful),
            ]
            await asyncio.gather(*work)
        finally:
            self._leave()

    async def _leased(self, deadline: float) -> Generation:
        """The generation, once the lease is held and everything owned stands under it."""
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._lease.wait_held()
            except TimeoutError:
                raise self._shard.outage.error("this node has no lease") from None
            generation = await self._shard.connected(deadline)
            if self._lease.held and self._lease.settled:
                return generation  # else it is a new one, under which everything is asserted first

    # -- claims ----------------------------------------------------------------------------

    def _claim_batches(
        self, generation: Generation, claims: list[PendingClaim]
    ) -> Iterator[Coroutine[Any, Any, None]]:
        groups: dict[tuple[str, bool, int], list[PendingClaim]] = {}
        times_seen: dict[tuple[str, str], int] = {}
        for claiming in claims:
            if claiming.won.done():  # while there was no lease its caller gave up
                continue
            connection = claiming.connection
            if closing.is_lost(connection):  # its client left while this waited for its batch
                claiming.fail(ConnectionClosedError())
                continue
            key = (connection.namespace, connection.id)
            turn = times_seen[key] = times_seen.get(key, -1) + 1
            groups.setdefault((connection.namespace, claiming.takeover, turn), []).append(claiming)
        for group in groups.values():
            for batch in batches(group):
                yield self._claim_batch(generation, batch, "")

    def _claim_batch(
        self, generation: Generation, batch: list[PendingClaim], dead: str
    ) -> Coroutine[Any, Any, None]:
        now, clock = asyncio.get_running_loop().time(), self._shard.clock
        lease_ends = now + self._lease.seconds_left()
        try:
            replies = self._registry.claim(
                generation,
                batch[0].connection.namespace,
                self._lease.incarnation,
                [
                    (
                        one.connection.id,
                        one.nonce,
                        one.first,
                        clock.at(min(one.deadline, lease_ends)),
                    )
                    for one in batch
                ],
                takeover=batch[0].takeover,
                dead=dead,
                room=self._room,
            )
        except Exception as error:
            return _claims_unwritten(batch, error)
        for claiming in batch:
            claiming.sent = True

        async def read() -> None:
            try:
                answers = await replies
            except BackplaneUnavailableError as error:
                if generation.lasts:
                    for claiming in batch:
                        claiming.fail(error)
                else:
                    self._claim_again(batch, clock.at(now))
                return
            await self._answered(batch, answers)

        return read()

    async def _answered(self, batch: list[PendingClaim], answers: list[ClaimReply]) -> None:
        """Settle what is decided; where a claim stands that may be a ghost's, look at its lease."""
        lost: list[tuple[PendingClaim, Claim]] = []
        for claiming, (status, claim) in zip(batch, answers, strict=True):
            if status == LATE:
                self._too_late(claiming)
            elif status == TAKEN and claim is not None:
                lost.append((claiming, claim))
            else:
                self._settle(claiming, status == CLAIMED, claim)
        if lost:
            await self._claim_from_ghosts(lost)

    def _too_late(self, claiming: PendingClaim) -> None:
        """Nothing was claimed. It goes again if it was the lease that had no time left."""
        claiming.sent = claiming.first > 0
        if claiming.deadline > asyncio.get_running_loop().time():
            self._to_claim.append(claiming)
            self._schedule()
        else:
            claiming.fail(BackplaneUnavailableError("Redis was reached too late"))

    def _claim_again(self, batch: list[PendingClaim], attempted: int) -> None:
        """The generation ended, and the reply with it: try in the next one, until the deadline."""
        for claiming in batch:
            claiming.first = claiming.first or attempted
        self._to_claim += batch
        self._schedule()

    async def _claim_from_ghosts(self, lost: list[tuple[PendingClaim, Claim]]) -> None:
        """An owner whose lease is gone does not keep an id from a newcomer."""
        deadline = max(claiming.deadline for claiming, _ in lost)  # each ends at its own
        try:
            living = await self._registry.living(deadline)
            generation = await self._shard.connected(deadline)
        except ClusterPoolError as error:
            for claiming, _ in lost:
                claiming.fail(error)
            return
        by_ghost: dict[str, list[PendingClaim]] = {}
        for claiming, claim in lost:
            if claim.incarnation in living:
                self._settle(claiming, False, claim)
            elif not claiming.won.done():
                by_ghost.setdefault(claim.incarnation, []).append(claiming)
        await asyncio.gather(
            *[self._claim_batch(generation, batch, ghost) for ghost, batch in by_ghost.items()]
        )

    # -- releases --------------------------------------------------------------------------

    def _release_batches(
        self, generation: Generation, releases: list[Releasable], deadline: float
    ) -> Iterator[Coroutine[Any, Any, None]]:
        groups: dict[str, list[Releasable]] = {}
        for connection in releases:
            if connection.claim is None:
                self._departed(connection, False)
            else:
                groups.setdefault(connection.namespace, []).append(connection)
        for group in groups.values():
            for batch in batches(group):
                yield self._release_batch(generation, batch, deadline)

    def _release_batch(
        self, generation: Generation, batch: list[Releasable], deadline: float
    ) -> Coroutine[Any, Any, None]:
        claims = [(connection.id, connection.claim) for connection in batch]
        try:
            reply = self._registry.release(generation, batch[0].namespace, claims, deadline)
        except Exception:
            log.exception("releases could not be written: they are tried again")
            self._unreleased += batch
            return _nothing()

        async def read() -> None:
            try:
                last_ones = await reply
            except BackplaneUnavailableError:
                self._unreleased += batch
                return
            if None in last_ones and len(self._doubted) < MOST_DOUBTED:
                self._doubted.add(batch[0].namespace)
            for connection, emptied in zip(batch, last_ones, strict=True):
                self._departed(connection, bool(emptied))

        return read()

    # -- rejoining -------------------------------------------------------------------------

    async def register_all(self, incarnation: str, keep: Keep) -> None:
        """Register everything that is owned under a new incarnation, with its own tokens.

        What another node won meanwhile is closed with 4409. ``keep`` renews the lease meanwhile.
        """
        await self._idle.wait()
        generation = await self._shard.connected(self._timeout())
        for _ in range(0, len(self._unreleased), PAGE):
            part, self._unreleased = self._unreleased[:PAGE], self._unreleased[PAGE:]
            await asyncio.gather(*self._release_batches(generation, part, self._timeout()))
            await keep()
        await self._reassertion.everything(generation, incarnation, keep)

    def _timeout(self) -> float:
        return asyncio.get_running_loop().time() + self._timing.timeout

    def _enter(self) -> None:
        self._busy += 1
        self._idle.clear()

    def _leave(self) -> None:
        self._busy -= 1
        if not self._busy:
            self._idle.set()


async def _claims_unwritten(batch: list[PendingClaim], error: Exception) -> None:
    """A batch of claims that could not even be written fails alone."""
    log.error("claims could not be written", exc_info=error)
    for claiming in batch:
        claiming.fail(BackplaneUnavailableError(f"not claimed: {error!r}"))


async def _nothing() -> None:
    """The part of a flush that has ended already."""
