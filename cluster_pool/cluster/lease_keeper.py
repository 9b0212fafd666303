"""The task that keeps this node's lease: it joins, renews, and rejoins after any doubt.

Decides when a lease is taken, renewed, given up and buried. It knows no connection: the observer
registers what is owned under a new incarnation.
"""

import asyncio
import json
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.leases import Leases
from cluster_pool.backplane.refusals import is_refusal
from cluster_pool.backplane.shard import LONGEST_REFUSED, Shard
from cluster_pool.cluster.lease import LeaseState, boottime
from cluster_pool.core.claims import incarnation_of
from cluster_pool.core.config import Timing
from cluster_pool.core.identity import Identity
from cluster_pool.core.statistics import REJOINS, Counters
from cluster_pool.exceptions import BackplaneUnavailableError, NodeIdTakenError

log = logging.getLogger("cluster_pool.lease")

LOOK = 0.5
"""Seconds between two looks at a predecessor's lease, and at the subscribers of its channel."""
SILENCE = 4.0
"""Seconds without a subscriber, at least, after which a predecessor counts as dead: longer than a
living node is without one, which is its longest pause between two generations, and a probe."""

FIRST_RETRY = 0.1
"""Seconds until a join that failed is tried again, at most; doubles up to a heartbeat."""

Keep = Callable[[], Awaitable[None]]
"""Renews the lease if a heartbeat is due; raises BackplaneUnavailableError when it is gone."""


class LeaseObserver(Protocol):
    """The node as its lease keeper uses it: what a lease contains, and what follows from it."""

    def node_info(self) -> dict[str, object]:
        """The info of this node for others; stored with every renewal."""

    def headroom(self) -> float | None:
        """Connections per second that this node can accept, None when it accepts none."""

    async def register_all(self, incarnation: str, keep: Keep) -> None:
        """Register everything that this node owns under a new incarnation.

        It calls ``keep`` between its steps, which may take long. It raises
        BackplaneUnavailableError when it is not done; the next attempt then goes on.
        """

    def registered(self) -> bool:
        """Whether all that this node owns is registered under its incarnation, at every shard."""

    def lease_renewed(self) -> None:
        """A heartbeat was acknowledged."""

    def node_renamed(self) -> None:
        """This node has another node id now: the shard's generation must end."""


class LeaseKeeper:
    """Writes the :class:`LeaseState`."""

    def __init__(
        self,
        lease: LeaseState,
        shard: Shard,
        leases: Leases,
        identity: Identity,
        timing: Timing,
        counters: Counters,
        observer: LeaseObserver,
    ) -> None:
        self._lease = lease
        self._shard = shard
        self._leases = leases
        self._identity = identity
        self._timing = timing
        self._counters = counters
        self._observer = observer
        self._joins = 0
        self._failures = 0
        self._generation = -1
        self._epoch = ""
        self._unfinished = False
        """Whether the lease was taken, but not all that is owned may be registered under it yet."""
        self._task: asyncio.Task[None] | None = None
        self._reason = ""
        """Why the last heartbeat did not renew the lease: one of ``REJOINS``."""
        self._asked = ""
        """The incarnation of the last join, even if its reply was lost."""
        self._rival = 0.0
        """The end of the lease of another start with this node id; 0 when there is none."""
        self._predecessor = ""
        """The incarnation of that lease."""
        self._former: list[str] = []
        """Incarnations that were given up and are perhaps not buried yet."""

    async def start(self) -> None:
        """Take the first lease, then keep it.

        Raises:
            NodeIdTakenError: another live node renews its lease under this node id.
            BackplaneUnavailableError: Redis did not answer.
        """
        await self._join_first()
        await self._shard.subscriptions.hear_own(self._deadline())
        self._task = asyncio.create_task(self._run(), name="cluster_pool lease")

    async def stop(self) -> None:
        """End the task; :meth:`give_up` ends the lease itself."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def give_up(self) -> None:
        """End this node's incarnations for good, after all that they owned was released."""
        self._lease.end()
        for incarnation in dict.fromkeys((*self._former, self._lease.incarnation, self._asked)):
            if incarnation:
                await self._leases.bury(incarnation, self._deadline(), "own")
        await self._leases.forget_channel(self._deadline())

    def wake(self) -> None:
        """Look at once whether a new lease must be taken."""
        if self._shard.generation != self._generation:
            self._lease.unsettle()
        self._lease.needed.set()

    async def keep(self) -> None:
        """Renew the lease if a heartbeat is due; called between the steps of a long operation.

        Raises BackplaneUnavailableError when the lease is gone or Redis has lost its state.
        """
        due = boottime() >= self._lease.renewed_at + self._timing.heartbeat
        if due and not await self._renew():
            raise BackplaneUnavailableError("the lease ended before everything stood under it")

    # -- joining ---------------------------------------------------------------------------

    async def _join_first(self) -> None:
        """Take the first lease.

        If a crashed predecessor has one, this waits until it ends, or until no process has been
        subscribed to the channel of this node id for some time.
        """
        silent_since = math.inf
        silence = max(SILENCE, LONGEST_REFUSED + 2 * self._timing.probe)
        while not await self._join(boottime() - silent_since >= silence):
            silent_since = min(silent_since, boottime()) if await self._silent() else math.inf
            await asyncio.sleep(LOOK)
        self._settle()

    async def _silent(self) -> bool:
        """Whether no process is subscribed to the channel of this node id; this start is not yet.

        False if Redis does not answer: then the end of the lease is waited for.
        """
        try:
            return await self._leases.listeners(self._deadline()) == 0
        except BackplaneUnavailableError:
            return False

    async def _join(self, silent: bool = False) -> bool:
        """Take a lease for a fresh incarnation; False while another start has this node id.

        A lease that is not renewed belongs to a crashed node, and will end.

        Args:
            silent: the other start has been silent for long: end its lease and take one.

        Raises:
            NodeIdTakenError: the other renews its lease.
        """
        incarnation = self._asked = incarnation_of(self._identity.start, self._joins)
        epoch = await self._shard.health.propose_epoch(self._deadline())
        generation, sent = self._shard.generation, boottime()
        reply = await self._leases.join(
            incarnation,
            self._timing.lease,
            json.dumps(self._observer.node_info()),
            self._headroom(),
            epoch,
            self._deadline(),
            instead_of=self._predecessor if silent else "",
        )
        before, self._rival = self._rival, reply.ends
        self._predecessor = reply.holder
        if not reply.held:
            if before not in (0.0, reply.ends):
                raise NodeIdTakenError(self._identity.node_id)
            if not before:
                log.warning("node id %r has a lease: waiting for its end", self._identity.node_id)
            return False
        self._joins += 1
        self._unfinished = False
        self._generation = generation
        self._epoch = reply.epoch
        self._lease.begin(incarnation, sent, reply.living)
        await self._shard.health.mark(reply.epoch, self._deadline())
        self._unfinished = True
        return True

    async def _rejoin(self) -> None:
        """Take a lease for a new incarnation and register everything, or go on registering.

        An interrupted registration keeps its incarnation while that has its lease in Redis, so that
        nothing is registered twice. No claims and releases are sent during a registration, so none
        can have been lost with the connection. At other times they may have been: therefore a new
        connection needs a new incarnation, and all that is left of the old one is reaped.
        """
        reason = self._reason or "doubt"
        self._lease.unsettle()
        self._lease.break_if_over()
        generation = self._shard.generation
        if self._unfinished and await self._renew():
            self._generation = generation
        else:
            await self._join_anew()
        await self._observer.register_all(self._lease.incarnation, self.keep)
        if self._shard.generation != self._generation:
            return
        self._counters.rejoined(reason)
        log.warning("rejoined as %s: %s", self._lease.incarnation, REJOINS[reason])
        self._settle()
        await self._bury_former()

    async def _bury_former(self) -> None:
        """Bury the incarnations that were given up, once no claim needs them any more.

        At a shard that was down during the rejoin, claims are registered under them until it is up.
        With their leases over, ids there would be free for others, and members would be reaped.
        """
        while self._former and self._observer.registered():
            await self._leases.bury(self._former[0], self._deadline(), "own")
            self._former.pop(0)

    async def _join_anew(self) -> None:
        """Take a lease for a new incarnation, or raise BackplaneUnavailableError to try again.

        If another node renews a lease under its node id, this node goes on under a new id, and so
        keeps its clients. The next attempt is made when it is subscribed to the channel of that.
        """
        self._unfinished = False
        if self._lease.incarnation not in self._former:
            self._former.append(self._lease.incarnation)
        node_id = self._identity.node_id
        try:
            if await self._join():
                return
        except NodeIdTakenError:
            self._rival = 0.0
            self._identity.change()
            log.warning(
                "another node has taken the node id %r while this one was cut off from Redis: "
                "it goes on as %r, with its connections",
                node_id,
                self._identity.node_id,
            )
            self._observer.node_renamed()
        raise BackplaneUnavailableError(f"node id {node_id} belongs to another node")

    def _settle(self) -> None:
        self._unfinished = False
        self._lease.settle()

    # -- keeping ---------------------------------------------------------------------------

    async def _run(self) -> None:
        needed = self._lease.needed
        while True:
            needed.clear()  # before the beat: set during the beat, it means another one
            try:
                await self._beat()
                self._failures = 0
                self._lease.failing = False
                self._shard.outage.recover("lease")
            except BackplaneUnavailableError as error:
                self._failed()
                log.debug("no heartbeat: %s", error)
                if not self._lease.held:
                    self._lease.unsettle()
                if self._shard.up and (is_refusal(error) or not self._lease.held):
                    self._shard.outage.fail("lease", str(error), self._pause())
            except Exception:
                self._failed()
                log.exception("a heartbeat failed by itself")
            try:
                async with asyncio.timeout(self._pause()):
                    await needed.wait()
            except TimeoutError:
                continue

    def _failed(self) -> None:
        self._failures += 1
        self._lease.failing = True

    async def _beat(self) -> None:
        await self._shard.connected(self._deadline())
        doubt = self._doubt()
        self._reason = doubt or self._reason
        if not doubt and await self._renew():
            self._observer.lease_renewed()
            await self._bury_former()
        else:
            await self._rejoin()

    async def _renew(self) -> bool:
        """Send a heartbeat; False when the lease is gone or Redis has lost its state."""
        sent = boottime()
        reply = await self._leases.heartbeat(
            self._lease.incarnation,
            self._timing.lease,
            json.dumps(self._observer.node_info()),
            self._headroom(),
            self._epoch,
            self._deadline(),
        )
        if not reply.held:
            self._reason = "lease_gone"
            return False
        if reply.epoch != self._epoch:
            self._reason = "state_lost"
            return False
        self._lease.renew(sent, reply.living)
        return True

    def _doubt(self) -> str:
        """Why a new lease is needed, as far as this node can tell by itself; "" if it is not."""
        if self._shard.generation != self._generation:
            return "link"
        if not self._lease.held:
            return "lease_over"
        return "" if self._lease.settled else self._reason or "doubt"

    def _headroom(self) -> str:
        headroom = self._observer.headroom()
        return "" if headroom is None else f"{headroom:.2f}"

    def _pause(self) -> float:
        """Seconds until the next look: a heartbeat, or less while in doubt, with jitter."""
        if not self._doubt():
            return self._timing.heartbeat
        longest = min(FIRST_RETRY * 2 ** min(self._failures, 10), self._timing.heartbeat)
        return random.uniform(longest / 2, longest)

    def _deadline(self) -> float:
        return deadline_in(self._timing.timeout)
