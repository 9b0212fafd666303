"""This node's timed right to own anything: joining, renewing, and rejoining after any doubt.

Owns the incarnation. It knows no connection: what must be asserted under a new incarnation is the
membership's, which it is given as a callback.
"""

import asyncio
import json
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable

from cluster_pool.backplane.refusals import is_refusal
from cluster_pool.backplane.registry import Registry
from cluster_pool.backplane.shard import LONGEST_REFUSED, Shard
from cluster_pool.core.claims import incarnation_of
from cluster_pool.core.config import Timing
from cluster_pool.core.identity import Identity
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError, NodeIdTakenError

log = logging.getLogger("cluster_pool.lease")

MARGIN = 1.0
"""Seconds by which this node's own clock ends a lease early, at most a fifth of it."""

LOOK = 0.5
"""Seconds between two looks at a predecessor's lease, and at who listens to its channel."""
SILENCE = 4.0
"""Seconds, at least, without any listener after which a predecessor is taken for dead: longer than
the longest pause of a node that lives between two links, and a probe."""

FIRST_RETRY = 0.1
"""Seconds until a join that failed is tried again, at most; doubles up to a heartbeat."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Seconds on a clock that goes on while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


class Lease:
    """Held from a join or a heartbeat until a little before Redis ends it.

    ``headroom()`` gives the connections per second that this node can take, None when it takes
    nobody. ``on_rejoin(incarnation)`` must register everything that this node owns under the new
    incarnation; ``on_beat()`` runs after every renewal, ``on_renamed()`` when this node has taken
    another node id: it must end the session's generation.
    """

    def __init__(
        self,
        shard: Shard,
        registry: Registry,
        identity: Identity,
        timing: Timing,
        counters: Counters,
        info: Callable[[], dict[str, object]],
        headroom: Callable[[], float | None],
        on_rejoin: Callable[[str], Awaitable[None]],
        on_beat: Callable[[], None],
        on_renamed: Callable[[], None],
    ) -> None:
        self._shard = shard
        self._registry = registry
        self._identity = identity
        self._timing = timing
        self._counters = counters
        self._info = info
        self._headroom = headroom
        self._on_rejoin = on_rejoin
        self._on_beat = on_beat
        self._on_renamed = on_renamed
        self._joins = 0
        self._failures = 0
        self._generation = -1
        self._epoch = ""
        self._until = 0.0
        self._renewed_at = 0.0
        self._broken = False
        self._unfinished = False
        """Whether the incarnation was taken and what is owned may not all stand under it yet."""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._reason = ""
        """Why the last heartbeat was none."""
        self.incarnation = ""
        self._asked = ""
        """The incarnation of the last join, also when nobody knows whether it was carried out."""
        self._rival = 0.0
        """When the lease ends that another start has under this node id; 0 when none has."""
        self._predecessor = ""
        """The incarnation that has that lease."""
        self._former: list[str] = []
        """Incarnations that were given up and are not known to be buried."""
        self.held_since = 0.0
        self.living = 1
        """How many nodes held a lease at the last heartbeat."""
        self._alone_since = math.inf
        self.settled = asyncio.Event()
        """Set while the lease is held and everything owned is registered under it."""

    @property
    def held(self) -> bool:
        """Whether this node may own, by its own clock; checked before every batch."""
        return boottime() < self._until

    @property
    def unbroken(self) -> bool:
        """Whether nobody else can have claimed what is owned here.

        False from the end of a lease until everything that is owned stands under the next one.
        """
        return self.held and not self._broken

    def alone_for(self) -> float:
        """Since when every heartbeat has said that no other node lives, in seconds; else 0."""
        return max(0.0, boottime() - self._alone_since)

    def seconds_left(self) -> float:
        """How long this node may still own, by its own clock."""
        return max(0.0, self._until - boottime())

    async def start(self) -> None:
        """Take the first lease, then keep it.

        Raises:
            NodeIdTakenError: another live node renews its lease under this node id.
            BackplaneUnavailableError: Redis did not answer.
        """
        await self._join_first()
        self._task = asyncio.create_task(self._run(), name="cluster_pool lease")

    async def stop(self) -> None:
        """Keep it no longer; the lease itself is given up by :meth:`give_up`."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def give_up(self) -> None:
        """End this node's incarnations for good, once everything they owned is released."""
        self._until = 0.0
        self.settled.clear()
        for incarnation in dict.fromkeys((*self._former, self.incarnation, self._asked)):
            if incarnation:
                await self._registry.bury(incarnation, self._deadline(), "own")
        if not self._rival:
            await self._registry.forget_channel(self._deadline())

    async def wait_held(self) -> None:
        """Wait until the lease is held, by its clock too, and everything owned stands under it.

        While Redis refuses heartbeats, who waits here does not make them come faster.
        """
        while not (self.held and self.settled.is_set()):
            if not self.held:
                self.settled.clear()
                if not self._failures:
                    self._wake.set()
            await self.settled.wait()

    def wake(self) -> None:
        """Look at once whether the lease must be taken anew."""
        if self._shard.generation != self._generation:
            self.settled.clear()
        self._wake.set()

    async def keep(self) -> None:
        """Renew the lease if a heartbeat is due: between the steps of what takes long under it.

        Raises BackplaneUnavailableError when the lease is gone or Redis has lost its state.
        """
        due = boottime() >= self._renewed_at + self._timing.heartbeat
        if due and not await self._renew():
            raise BackplaneUnavailableError("the lease ended before everything stood under it")

    # -- joining ---------------------------------------------------------------------------

    async def _join_first(self) -> None:
        """Take the first lease: of a crashed predecessor, when it has ended, or when nobody listens
        to the channel of this node id any more."""
        silent_since = math.inf
        silence = max(SILENCE, LONGEST_REFUSED + 2 * self._timing.probe)
        while not await self._join(boottime() - silent_since >= silence):
            silent_since = min(silent_since, boottime()) if await self._silent() else math.inf
            await asyncio.sleep(LOOK)
        self._settle()

    async def _silent(self) -> bool:
        """Whether this start alone listens to the channel of its node id.

        False, too, where Redis does not say so: a lease is then waited for.
        """
        try:
            return await self._registry.listeners(self._deadline()) == 1
        except BackplaneUnavailableError:
            return False

    async def _join(self, silent: bool = False) -> bool:
        """Take a lease for a fresh incarnation; False while another start has this node id.

        A lease that is not renewed is a crashed node's, and will end.

        Args:
            silent: the other has not been heard of for long: its lease is taken from it.

        Raises:
            NodeIdTakenError: the other renews its lease.
        """
        incarnation = self._asked = incarnation_of(self._identity.start, self._joins)
        epoch = await self._shard.propose_epoch(self._deadline())
        generation, sent = self._shard.generation, boottime()
        reply = await self._registry.join(
            incarnation,
            self._timing.lease,
            json.dumps(self._info()),
            self._headroom_text(),
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
        self._broken = self._broken or not self.held
        self.incarnation = incarnation
        self._generation = generation
        self._epoch = reply.epoch
        self._counted(reply.living, sent)
        self.held_since = sent
        self._renewed(sent)
        await self._shard.mark(reply.epoch, self._deadline())
        self._unfinished = True
        return True

    async def _rejoin(self) -> None:
        """Take a new incarnation and register everything under it, or go on with that.

        A registration that was interrupted keeps its incarnation for as long as that has its lease
        in Redis: what was registered is not lost. No claim or release goes out meanwhile, so none
        can have been lost with the link. In ordinary times they do, and a new link therefore takes
        a new incarnation: whatever the old one left behind unanswered is reaped with it.
        """
        reason = self._reason
        self.settled.clear()
        generation, held = self._shard.generation, self.held
        if self._unfinished and await self._renew():
            self._broken = self._broken or not held
            self._generation = generation
        else:
            await self._take_anew()
        await self._on_rejoin(self.incarnation)
        if self._shard.generation != self._generation:
            return
        self._counters.rejoins += 1
        log.warning("rejoined as %s: %s", self.incarnation, reason)
        self._settle()
        while self._former:
            await self._registry.bury(self._former[0], self._deadline(), "own")
            self._former.pop(0)

    async def _take_anew(self) -> None:
        """Take a new incarnation, or raise BackplaneUnavailableError for the next attempt.

        Whose node id another node renews goes on under a fresh one: it has clients, which it can
        keep. The next attempt is made once it hears the channel that belongs to it.
        """
        self._unfinished = False
        if self.incarnation not in self._former:
            self._former.append(self.incarnation)
        node_id = self._identity.node_id
        try:
            if await self._join():
                return
        except NodeIdTakenError:
            self._rival = 0.0
            self._identity.take_another()
            log.warning(
                "another node has taken the node id %r while this one was cut off from Redis: "
                "it goes on as %r, with its connections",
                node_id,
                self._identity.node_id,
            )
            self._on_renamed()
        raise BackplaneUnavailableError(f"node id {node_id} belongs to another node")

    def _settle(self) -> None:
        self._broken = self._unfinished = False
        self.settled.set()

    # -- keeping ---------------------------------------------------------------------------

    async def _run(self) -> None:
        while True:
            self._wake.clear()  # before: whoever wakes it during the beat has news for the next
            try:
                await self._beat()
                self._failures = 0
                self._shard.outage.recover("lease")
            except BackplaneUnavailableError as error:
                self._failures += 1
                log.debug("no heartbeat: %s", error)
                if not self.held:
                    self.settled.clear()
                if self._shard.up and (is_refusal(error) or not self.held):
                    self._shard.outage.fail("lease", str(error), self._pause())
            except Exception:
                self._failures += 1
                log.exception("a heartbeat failed by itself")
            try:
                async with asyncio.timeout(self._pause()):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _beat(self) -> None:
        await self._shard.link_by(self._deadline())
        doubt = self._doubt()
        self._reason = doubt or self._reason
        if not doubt and await self._renew():
            self._on_beat()
        else:
            await self._rejoin()

    async def _renew(self) -> bool:
        """A heartbeat; False when the lease is gone or Redis has lost its state."""
        sent = boottime()
        reply = await self._registry.heartbeat(
            self.incarnation,
            self._timing.lease,
            json.dumps(self._info()),
            self._headroom_text(),
            self._epoch,
            self._deadline(),
        )
        if not reply.held:
            self._reason = "its lease was gone from Redis, or its node id belongs to another"
            return False
        if reply.epoch != self._epoch:
            self._reason = "Redis has lost its state: its epoch is another one"
            return False
        self._counted(reply.living, sent)
        self._renewed(sent)
        return True

    def _in_doubt(self) -> bool:
        return bool(self._doubt())

    def _doubt(self) -> str:
        """Why the lease must be taken anew, as far as this node can tell by itself; or ""."""
        if self._shard.generation != self._generation:
            return "the link to Redis is a new one"
        if not self.held:
            return "its lease was over by its own clock"
        return "" if self.settled.is_set() else self._reason or "it was in doubt"

    def _headroom_text(self) -> str:
        headroom = self._headroom()
        return "" if headroom is None else f"{headroom:.2f}"

    def _counted(self, living: int, sent: float) -> None:
        self.living = living
        self._alone_since = min(self._alone_since, sent) if living <= 1 else math.inf

    def _renewed(self, sent: float) -> None:
        lease = self._timing.lease
        self._renewed_at = sent
        self._until = sent + lease - min(MARGIN, lease / 5)

    def _pause(self) -> float:
        """Until the next look: a heartbeat, or less while in doubt, with jitter."""
        if not self._in_doubt():
            return self._timing.heartbeat
        longest = min(FIRST_RETRY * 2 ** min(self._failures, 10), self._timing.heartbeat)
        return random.uniform(longest / 2, longest)

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timing.timeout
