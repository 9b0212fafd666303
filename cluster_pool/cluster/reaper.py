"""Removes the members of vanished nodes. Each node does it; there is no leader.

An incarnation is buried first, which ends its lease for good. Then members are deleted only if
their claim names that incarnation, so that a living node's members are never touched, however late
this runs.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Sequence

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.claims import PAGE, Claims
from cluster_pool.backplane.leases import Leases
from cluster_pool.backplane.reaping import BEGIN, Reaping
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.core.claims import start_of
from cluster_pool.core.config import Timing
from cluster_pool.core.ids import shown
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.reaper")

AFTER_THE_END = 0.05
"""Seconds after the end of a lease at which the reaper looks."""
MOST_ORPHANS = 10_000


@contextlib.contextmanager
def _later(incarnation: str) -> Iterator[None]:
    """If Redis does not answer, leave this incarnation to the next look and go on with others."""
    try:
        yield
    except BackplaneUnavailableError as error:
        log.warning("%s is not reaped yet: %s", shown(incarnation), error)


class Reaper:
    """A task that sleeps until it is woken: by a heartbeat, or at the very end of a lease.

    A node that goes on under another lease buries the former one itself, and removes what it has
    left under that, as soon as it has registered again what it owns: none of that is ever removed.

    Args:
        on_empty: called with each namespace that a removal left without members.
        registered: whether all that this node owns is registered under its incarnation.
        releases: whether this node has releases in a namespace that Redis has not answered yet.
        remember: called with each namespace that was looked at: a failover may lose what was
            removed there.
    """

    def __init__(
        self,
        lease: LeaseState,
        leases: Leases,
        claims: Claims,
        reaping: Reaping,
        timing: Timing,
        counters: Counters,
        on_empty: Callable[[str], None],
        registered: Callable[[], bool],
        releases: Callable[[str], bool],
        remember: Callable[[str], None],
    ) -> None:
        self._leases = leases
        self._claims = claims
        self._reaping = reaping
        self._cursors: Sequence[bytes] = BEGIN
        self._orphans: dict[str, float] = {}
        """Incarnations without a lease, with the time when that was first seen."""
        self._unanswered: dict[tuple[str, str], str] = {}
        """Namespace and incarnation of removals whose reply was lost, with the node id."""
        self._timing = timing
        self._counters = counters
        self._lease = lease
        self._on_empty = on_empty
        self._registered, self._releases = registered, releases
        self._remember = remember
        self._wake = asyncio.Event()
        self._due: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task."""
        self._task = asyncio.create_task(self._run(), name="cluster_pool reaper")

    async def stop(self) -> None:
        """End the task, even in the middle of a removal: another node goes on."""
        if self._due is not None:
            self._due.cancel()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def wake(self) -> None:
        """Look now."""
        self._wake.set()

    def wake_in(self, seconds: float) -> None:
        """Look in so many seconds, when a lease ends, unless a heartbeat comes before that."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if seconds <= self._timing.heartbeat:
            loop = asyncio.get_running_loop()
            self._due = loop.call_later(max(seconds, 0.0) + AFTER_THE_END, self.wake)

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._look()
            except BackplaneUnavailableError as error:
                log.debug("not reaped: %s", error)
            except Exception:
                log.exception("reaping failed by itself")

    async def _look(self) -> None:
        if self._lease.may_judge():
            await self._bury_expired()
            await self._sweep()
            await self._look_ahead()
        dead = await self._reaping.dead(self._deadline())
        if not dead and not self._unanswered:
            return
        living = await self._living()
        for (namespace, incarnation), node_id in list(self._unanswered.items()):
            with _later(incarnation):
                lives_on = start_of(incarnation) in living
                await self._clear(namespace, incarnation, node_id, lives_on, counted=True)
        for incarnation, node_id in dead.items():
            lives_on = start_of(incarnation) in living
            if not lives_on or self._is_own(incarnation):
                with _later(incarnation):
                    await self._reap(incarnation, node_id, lives_on=lives_on)

    async def _bury_expired(self) -> None:
        """Bury incarnations whose lease has ended, but those of nodes that have another one."""
        expired = await self._leases.expired(self._deadline())
        living = await self._living() if expired else ()
        for incarnation in expired:
            if start_of(incarnation) in living:
                continue
            if await self._leases.bury(incarnation, self._deadline(), "expired"):
                log.warning("incarnation %s has vanished", shown(incarnation))

    async def _living(self) -> set[str]:
        """The starts of nodes that hold a lease."""
        return {start_of(one) for one in await self._leases.living(self._deadline())}

    def _is_own(self, incarnation: str) -> bool:
        """Whether this node has given it up, and nothing that it owns is registered under it."""
        own = start_of(self._lease.incarnation)
        return start_of(incarnation) == own and self._registered()

    async def _sweep(self) -> None:
        """Bury incarnations that have had no lease for the length of one: they will not join."""
        now = asyncio.get_running_loop().time()
        self._cursors, found = await self._reaping.sweep(
            self._timing.lease, self._cursors, self._deadline()
        )
        for incarnation in found:
            since = self._orphans.setdefault(incarnation, now)
            if now - since >= self._timing.lease:
                await self._leases.bury(incarnation, self._deadline(), "orphan")
                log.warning("incarnation %s had lost its lease", shown(incarnation))
        if len(self._orphans) > MOST_ORPHANS or not found:
            self._orphans = {name: self._orphans[name] for name in found if name in self._orphans}

    async def reap_own(self, start: str) -> None:
        """Remove the members of this node's own incarnations, so that a stop leaves none behind."""
        for incarnation, node_id in (await self._reaping.dead(self._deadline())).items():
            if incarnation.startswith(f"{start}."):
                await self._reap(incarnation, node_id, lives_on=False)

    async def _look_ahead(self) -> None:
        next_end = await self._leases.next_end(self._deadline())
        if next_end:
            self.wake_in(next_end / 1000 - self._leases.now())

    async def _reap(self, incarnation: str, node_id: str, *, lives_on: bool) -> None:
        """Remove the members of a buried incarnation.

        After a rejoin few namespaces have any, so a call looks at hundreds of namespaces. Its node
        ``lives_on`` then, and may have releases that Redis has not heard yet.
        """
        noted = await self._claims.namespaces_of(incarnation, self._deadline)
        namespaces = await self._reaping.reachable(noted)
        total = 0
        pages = [namespaces[at : at + PAGE] for at in range(0, len(namespaces), PAGE)]
        for page in random.sample(pages, len(pages)):  # in another order than other nodes
            for namespace in page:
                self._remember(namespace)
            for counted in (True, False):  # the second finds members that were not counted
                page = await self._reaping.left_by(incarnation, page, self._deadline())
                for namespace in page:
                    total += await self._clear(
                        namespace, incarnation, node_id, lives_on, counted=counted
                    )
        if total:
            log.info("reaped %d members of %s on %s", total, incarnation, node_id)
        if len(namespaces) < len(noted):
            raise BackplaneUnavailableError("a part of its namespaces is at a shard that is down")
        await self._reaping.forget(incarnation, self._deadline())

    async def _clear(
        self, namespace: str, incarnation: str, node_id: str, lives_on: bool, *, counted: bool
    ) -> int:
        self._unanswered[namespace, incarnation] = node_id
        gone, emptied = await self._reaping.clear(
            namespace,
            incarnation,
            node_id,
            self._timing.timeout,
            counted=counted,
            lives_on=lives_on and self._releases(namespace),
        )
        del self._unanswered[namespace, incarnation]
        self._counters.reaped += gone
        if emptied:
            self._on_empty(namespace)
        return gone

    def _deadline(self) -> float:
        return deadline_in(self._timing.timeout)
