"""Batches claims, releases and checks of claims to Redis, while the lease is valid.

Operations that come within ``GATHER`` of a flush, or while ``IN_FLIGHT`` flushes are unanswered, go
with the next flush: a storm of connects needs few calls. A flush queues the namespaces that are new
here, then claims, then releases. Each shard has its own, so one that is silent holds up no other.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.claims import ClaimReply, Claims, batches
from cluster_pool.backplane.leases import Leases
from cluster_pool.backplane.refusals import is_elsewhere, is_refusal
from cluster_pool.backplane.script_words import CLAIMED, LATE, TAKEN
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.slots import slot_of
from cluster_pool.backplane.succession import UNSURE
from cluster_pool.backplane.topology import Links, Topology
from cluster_pool.cluster.claim_loads import Load, Loads, split
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.lease_keeper import Keep
from cluster_pool.cluster.namespaces import Namespaces
from cluster_pool.cluster.pending_claim import PendingClaim, fail_claims
from cluster_pool.cluster.release_batcher import ReleaseBatcher
from cluster_pool.cluster.restoration import Restoration
from cluster_pool.core.claims import Claim, start_of
from cluster_pool.core.config import Timing
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ClusterPoolError,
    ConnectionClosedError,
    MembershipLimitError,
)
from cluster_pool.local import closing
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership
from cluster_pool.local.profiles import told_of

GATHER = 0.005
"""Seconds from one flush to the next, at least, so that in a storm each flush has many claims."""
PAUSE = 0.03
"""Seconds until claims that Redis did not execute are sent again."""
IN_FLIGHT = 4
"""Flushes that Redis has not answered, at most; further operations wait for the next one."""


class ClaimBatcher:
    """Gathers the registry operations of one node, and sends them.

    Args:
        room: gives the limit of the members of a namespace, its name and its value.
        decide: called for each claim with whether it won, and the claim that is registered now.
    """

    def __init__(
        self,
        topology: Topology,
        leases: Leases,
        claims: Claims,
        namespaces: Namespaces,
        timing: Timing,
        room: Callable[[str], tuple[str, int]],
        lease: LeaseState,
        restoration: Restoration,
        releases: ReleaseBatcher,
        decide: Callable[[PendingClaim, bool, Claim], None],
    ) -> None:
        self._topology = topology
        self._leases = leases
        self._claims = claims
        self._namespaces = namespaces
        self._timing = timing
        self._room = room
        self._lease = lease
        self._restoration = restoration
        self._releases = releases
        self._decide = decide
        self._loads = Loads(topology, releases)
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_flush: asyncio.Handle | None = None
        self._last_flush = -GATHER
        self._flights: dict[Shard, int] = {}
        self._writing = 0
        self._nothing_written = asyncio.Event()
        self._nothing_written.set()

    async def stop(self) -> None:
        """Cancel all operations that are still under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._next_flush is not None:
            self._next_flush.cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in a task that :meth:`wait_idle` waits for and :meth:`stop` cancels."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def wait_idle(self) -> None:
        """Wait until no operation waits for a flush or is under way."""
        while self._next_flush is not None or self._tasks:
            self._start_flush()
            await asyncio.sleep(0)
            if self._tasks:
                await asyncio.wait(self._tasks)

    # -- gathering -------------------------------------------------------------------------

    def claim(self, pending: PendingClaim) -> None:
        """Claim with the next flush."""
        self._loads.claims.append(pending)
        self._schedule(pending.membership.namespace)

    def release(self, membership: Membership[Connection]) -> None:
        """Release with the next flush; while Redis is away it waits for :meth:`tell_again`."""
        self._releases.add(membership)
        self._schedule(membership.namespace)

    def tell_again(self) -> None:
        """Tell Redis what it has not heard yet: releases that failed, and infos; called with each
        heartbeat. The same claim is never released twice."""
        self._releases.retry()
        if self._releases.waiting:
            self._arm()
        self._restoration.tell()

    def retry(self) -> None:
        """A shard is up again, or slots have moved: send the operations that wait for that."""
        self._loads.unpark()
        self._releases.retry()
        self._arm()

    def verify(self, membership: Membership[Connection]) -> None:
        """Ask with the next flush whether its claim still stands."""
        self._loads.doubtful.append(membership)
        self._schedule(membership.namespace)

    def _schedule(self, namespace: str) -> None:
        """Schedule a flush, unless the namespace's shard has enough calls in flight."""
        if self._flights.get(self._topology.of(namespace), 0) < IN_FLIGHT:
            self._arm()

    def _arm(self) -> None:
        if self._next_flush is None:
            loop = asyncio.get_running_loop()
            due = self._last_flush + GATHER
            if due <= loop.time():
                self._next_flush = loop.call_soon(self._start_flush)
            else:
                self._next_flush = loop.call_at(due, self._start_flush)

    def _start_flush(self) -> None:
        handle, self._next_flush = self._next_flush, None
        if handle is None:
            return
        handle.cancel()
        if not self._topology.spans and self._flights.get(self._topology.home, 0) >= IN_FLIGHT:
            return  # the end of a flush schedules the next one
        self._last_flush = asyncio.get_running_loop().time()
        loads, more = self._loads.pop(), bool(self._loads)
        for shard, load in loads.items():
            flights = self._flights.get(shard, 0)
            if flights >= IN_FLIGHT:
                self._loads.put_back(load)
            elif self._topology.spans and not shard.up:
                self._loads.park(load)
            else:
                self._flights[shard] = flights + 1
                self.spawn(self._fly(shard, load))
        if more:
            self._arm()

    async def _fly(self, shard: Shard, load: Load) -> None:
        try:
            await self._flush(shard, load)
        finally:
            self._flights[shard] -= 1
            if not self._flights[shard]:
                del self._flights[shard]
        if self._loads:
            self._arm()

    async def _flush(self, shard: Shard, load: Load) -> None:
        loop = asyncio.get_running_loop()
        latest = max((pending.deadline for pending in load.claims), default=self._timeout())
        try:
            links = await self._leased(latest)
        except ClusterPoolError as error:
            for pending in load.claims:
                pending.fail(error)
            self._releases.keep_for_later(load.releases)
            return
        claims, early, pause = split(load.claims, (shard, self._topology.home), loop.time())
        if early:
            self.spawn(self._try_again(early, UNSURE, pause))
        self._begin_writing()
        try:
            deadline = loop.time() + self._timing.timeout
            names = [pending.membership.namespace for pending in claims]
            adding = self._namespaces.add_new(links, self._lease.incarnation, names, deadline)
            if self._topology.spans:
                claims = await self._listed(claims, adding)
            work: list[Coroutine[Any, Any, Any]] = [
                *([] if self._topology.spans else [adding]),
                *self._claim_batches(links, claims),
                *self._releases.write(links, load.releases, deadline),
                self._restoration.doubtful(links, load.doubtful),
            ]
            await asyncio.gather(*work)
        finally:
            self._end_writing()

    async def _listed(
        self, claims: list[PendingClaim], adding: Coroutine[Any, Any, bool]
    ) -> list[PendingClaim]:
        """The claims whose namespaces home has listed; the others are tried again."""
        incarnation = self._lease.incarnation
        await adding
        names = await self._namespaces.listed(one.membership.namespace for one in claims)
        listed = names if self._lease.incarnation == incarnation else set()
        unlisted = [one for one in claims if one.membership.namespace not in listed]
        if unlisted:
            await self._try_again(unlisted, self._namespaces.unlisted)
        return [one for one in claims if one.membership.namespace in listed]

    async def _leased(self, deadline: float) -> Links:
        """The links, once the lease is held and settled."""
        while True:
            try:
                async with asyncio.timeout_at(deadline):
                    await self._lease.wait_held()
            except TimeoutError:
                raise self._topology.home.outage.error("this node has no lease") from None
            links = await self._topology.connected(deadline)
            if self._lease.held and self._lease.settled:
                return links  # else home is a new generation: everything is asserted first

    # -- claims ----------------------------------------------------------------------------

    def _claim_batches(
        self, links: Links, claims: list[PendingClaim]
    ) -> Iterator[Coroutine[Any, Any, None]]:
        groups: dict[tuple[str, bool | None, int], list[PendingClaim]] = {}
        times_seen: dict[tuple[str, str], int] = {}
        for pending in claims:
            if pending.won.done():  # its caller gave up while there was no lease
                continue
            membership = pending.membership
            if closing.is_lost(membership.connection):  # its client left before the batch was sent
                pending.fail(ConnectionClosedError())
                continue
            key = (membership.namespace, membership.id)
            turn = times_seen[key] = times_seen.get(key, -1) + 1
            groups.setdefault((membership.namespace, pending.takeover, turn), []).append(pending)
        for group in groups.values():
            for batch in batches(group):
                yield self._claim_batch(links, batch, "")

    def _claim_batch(
        self, links: Links, batch: list[PendingClaim], dead: str
    ) -> Coroutine[Any, Any, None]:
        namespace, now = batch[0].membership.namespace, asyncio.get_running_loop().time()
        clock = self._topology.of(namespace).clock
        lease_ends = now + self._lease.seconds_left()
        claims = [one.request(clock.at(min(one.deadline, lease_ends))) for one in batch]
        try:
            replies = self._claims.claim(
                links,
                namespace,
                self._lease.incarnation,
                claims,
                takeover=batch[0].takeover,
                dead=dead,
                room=self._room(namespace)[1],
                told=told_of(one.membership for one in batch),
            )
        except Exception as error:
            return fail_claims(batch, error)
        for pending in batch:
            pending.sent = True

        async def read() -> None:
            try:
                answers = await replies
            except BackplaneUnavailableError as error:
                await self._unanswered(batch, error, clock.at(now))
            else:
                await self._answered(batch, answers)

        return read()

    async def _unanswered(
        self, batch: list[PendingClaim], error: BackplaneUnavailableError, attempted: int
    ) -> None:
        """Fail what Redis refused; claim again what it did not execute or whose reply was lost."""
        if self._topology.spans and is_elsewhere(error):
            self._topology.look_again()
            await self._try_again(batch, f"slot {slot_of(batch[0].membership.namespace)}: {error}")
        elif is_refusal(error):
            for pending in batch:
                pending.fail(error)
        else:
            self._claim_again(batch, attempted)

    async def _answered(self, batch: list[PendingClaim], answers: list[ClaimReply]) -> None:
        """Decide each claim; if another claim stands, check whether its owner has a lease."""
        lost: list[tuple[PendingClaim, Claim]] = []
        for pending, (status, claim, resumption) in zip(batch, answers, strict=True):
            pending.resumption = resumption
            if status == LATE:
                self._too_late(pending)
            elif claim is None:
                pending.fail(MembershipLimitError(*self._room(pending.membership.namespace)))
            elif status == TAKEN:
                lost.append((pending, claim))
            else:
                self._decide(pending, status == CLAIMED, claim)
        if lost:
            await self._claim_from_ghosts(lost)

    def _too_late(self, pending: PendingClaim) -> None:
        """Nothing was claimed. Claim again if only the lease had no time left."""
        pending.sent = pending.first > 0
        if pending.deadline > asyncio.get_running_loop().time():
            self.claim(pending)
        else:
            pending.fail(BackplaneUnavailableError("Redis was reached too late"))

    def _claim_again(self, batch: list[PendingClaim], attempted: int) -> None:
        """The reply was lost with the generation: claim again in the next, until the deadline."""
        for pending in batch:
            pending.first = pending.first or attempted
            if self._topology.spans:  # the incarnation goes on, and with it what nobody waits for
                self._releases.doubt(pending.membership.namespace)
        self._loads.claims += batch
        self._arm()

    async def _try_again(self, claims: list[PendingClaim], why: str, pause: float = PAUSE) -> None:
        """Try claims again soon that were not executed, since a slot or the lease had gone."""
        for pending in claims:
            pending.why = why
            pending.sent = pending.first > 0
        await asyncio.sleep(pause)
        self._loads.claims += claims
        self._arm()

    async def _claim_from_ghosts(self, lost: list[tuple[PendingClaim, Claim]]) -> None:
        """Claim again over owners whose lease is gone: they do not keep an id.

        A node that lives on under another lease keeps it: it is about to register its claims again.
        """
        deadline = max(pending.deadline for pending, _ in lost)  # each ends at its own
        try:
            living = {start_of(one) for one in await self._leases.living(deadline)}
            links = await self._topology.connected(deadline)
        except ClusterPoolError as error:
            for pending, _ in lost:
                pending.fail(error)
            return
        by_ghost: dict[str, list[PendingClaim]] = {}
        for pending, claim in lost:
            if claim.start in living:
                self._decide(pending, False, claim)
            elif not pending.won.done():
                by_ghost.setdefault(claim.incarnation, []).append(pending)
        await asyncio.gather(
            *[self._claim_batch(links, batch, ghost) for ghost, batch in by_ghost.items()]
        )

    # -- rejoining -------------------------------------------------------------------------

    async def register_all(self, incarnation: str, keep: Keep) -> None:
        """Register all owned claims under a new incarnation, with their own tokens.

        A connection whose id another node won meanwhile is closed with 4409. ``keep`` renews the
        lease in between.
        """
        await self._nothing_written.wait()
        links = await self._topology.connected(self._timeout())
        for page in self._releases.unanswered_pages():
            await asyncio.gather(*self._releases.write(links, page, self._timeout()))
            await keep()
        await self._restoration.everything(links, incarnation, keep)

    def _timeout(self) -> float:
        return deadline_in(self._timing.timeout)

    def _begin_writing(self) -> None:
        self._writing += 1
        self._nothing_written.clear()

    def _end_writing(self) -> None:
        self._writing -= 1
        if not self._writing:
            self._nothing_written.set()
