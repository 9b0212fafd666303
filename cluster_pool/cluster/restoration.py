"""Registering this node's claims again at one of several Redis shards.

A primary of a cluster may fail over to a replica that has not all of its writes, or start empty,
and a slot may move. Then what this node owns there is compared with what is registered, and
asserted where that differs: under the present incarnation, with the original tokens, while the
lease and all other shards go on. After a rejoin everything is asserted at the shards that are up,
and at the others when they come up. One Redis is asserted as a whole, by the rejoin alone.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, Final

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.in_steps import in_steps
from cluster_pool.backplane.refusals import is_half_moved
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.slots import slot_of
from cluster_pool.backplane.topology import Links, Topology
from cluster_pool.cluster.latest import Latest
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.lease_keeper import Keep
from cluster_pool.cluster.reassertion import Reassertion
from cluster_pool.core.config import Timing
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool.membership")

AGAIN: Final = 0.2
"""Seconds, with jitter, until a failed restoration is tried again."""


class Restoration:
    """One task for each shard at which something is due."""

    def __init__(
        self,
        topology: Topology,
        reassertion: Reassertion,
        table: ConnectionTable,
        lease: LeaseState,
        timing: Timing,
    ) -> None:
        self._topology = topology
        self._reassertion = reassertion
        self._table = table
        self._lease = lease
        self._timing = timing
        self._over = False
        self._due: set[str] = set()
        self._informed: Latest[tuple[str, str]] = Latest()
        self._untold: dict[Membership[Connection], None] = {}
        self._telling: asyncio.Task[None] | None = None
        self._found = 0
        """How often something became due."""
        self._searches: set[asyncio.Task[None]] = set()
        self._tasks: dict[Shard, asyncio.Task[None]] = {}

    @property
    def due(self) -> int:
        """The number of namespaces whose claims may not be registered, as far as it is known; at
        least 1 while a search for them goes on."""
        return max(len(self._due), len(self._searches))

    def is_due(self, namespace: str) -> bool:
        """Whether what is owned in a namespace may not be registered, as far as is known."""
        return bool(self._searches) or namespace in self._due

    def informed(self, membership: Membership[Connection]) -> None:
        """Note that a member's info was replaced.

        A replica that takes over need not have heard of it, and no count says so.
        """
        self._untold.pop(membership, None)
        self._informed.note((membership.namespace, membership.id))

    def untold(self, membership: Membership[Connection]) -> None:
        """Redis did not say in time whether it has a member's info: it is told with a heartbeat."""
        self._untold[membership] = None

    def tell(self) -> None:
        """Tell Redis the infos that it may not have; called with each heartbeat."""
        if self._untold and not self._over and (self._telling is None or self._telling.done()):
            self._telling = asyncio.create_task(self._tell(), name="cluster_pool infos")

    async def _tell(self) -> None:
        late, self._untold = self._untold, {}
        told = False
        try:
            links = await self._topology.connected(deadline_in(self._timing.timeout))
            told = await self._reassertion.doubtful(links, late)
        except BackplaneUnavailableError:
            log.debug("infos are not told yet")
        finally:
            if not told:
                self._untold = {**late, **self._untold}

    def doubtful(
        self, links: Links, memberships: Iterable[Membership[Connection]]
    ) -> Coroutine[Any, Any, bool]:
        """Assert some memberships; see :meth:`.Reassertion.doubtful`."""
        return self._reassertion.doubtful(links, memberships)

    async def stop(self) -> None:
        """Stop all searches and restorations, for good: links may still come up."""
        self._over = True
        await self._cancel()

    async def _cancel(self) -> None:
        telling = [] if self._telling is None else [self._telling]
        tasks = [*self._searches, *self._tasks.values(), *telling]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- at one shard ----------------------------------------------------------------------

    def shard_up(self, shard: Shard) -> None:
        """A shard has new links: compare the claims there."""
        self._search(lambda name: self._topology.of(name) is shard)

    def moved(self, slots: Collection[int]) -> None:
        """Slots are at other shards now: compare the claims there."""
        self._search(lambda name: slot_of(name) in slots)

    def _search(self, concerned: Callable[[str], bool]) -> None:
        if self._over:
            return
        search = asyncio.create_task(self._find(concerned), name="cluster_pool search")
        self._searches.add(search)
        search.add_done_callback(self._searches.discard)

    async def _find(self, concerned: Callable[[str], bool]) -> None:
        async for part in in_steps(self._table.namespaces()):
            self._due.update(filter(concerned, part))
        self._begin()

    def _begin(self) -> None:
        """Have each shard look for what is due there."""
        if self._over:
            return
        self._found += 1
        for shard in self._topology.shards[1:]:  # home has no namespaces
            task = self._tasks.get(shard)
            if task is None or task.done():
                self._tasks[shard] = asyncio.create_task(
                    self._restore(shard), name="cluster_pool restoration"
                )

    async def _restore(self, shard: Shard) -> None:
        """Restore what is due at a shard, until nothing is, or it is down: then its next generation
        begins this again."""
        while shard.up:
            await self._lease.wait_held()
            found = self._found
            names = await self._due_at(shard)
            if not names and found == self._found:
                return
            try:
                links = await self._topology.connected(None)
                await self._register(links, shard, names, self._lease.incarnation)
                continue
            except BackplaneUnavailableError as error:
                log.debug("not registered again yet: %s", error)
            except Exception:
                log.exception("a registration failed by itself")
            await asyncio.sleep(AGAIN * random.uniform(0.5, 1))

    async def _due_at(self, shard: Shard) -> list[str]:
        async for part in in_steps(self._due):
            gone = [name for name in part if self._table.namespace(name) is None]
            self._due.difference_update(gone)
        return (await self._topology.by_shard(self._due)).get(shard, [])

    async def _register(
        self, links: Links, shard: Shard, names: list[str], incarnation: str
    ) -> None:
        generation = shard.generation
        error: BackplaneUnavailableError | None = None
        try:
            await self._reassertion.register(links, names, incarnation, _nothing)
            if informed := self._informed_in(names):
                await self._reassertion.doubtful(links, informed)
        except BackplaneUnavailableError as refused:
            if not is_half_moved(refused):
                raise
            names, error = await self._slot_by_slot(links, names, incarnation), refused
        async for part in in_steps(names):
            if shard.generation != generation:
                return  # some of it may be lost again
            self._due.difference_update(name for name in part if self._topology.of(name) is shard)
        if error is not None:
            raise error

    def _informed_in(self, names: Iterable[str]) -> list[Membership[Connection]]:
        """The members in some namespaces whose info was replaced lately."""
        wanted = set(names)
        lately = [(name, id) for name, id in self._informed if name in wanted]
        found = [(self._table.namespace(name) or {}).get(id) for name, id in lately]
        return [one for one in found if one is not None]

    async def _slot_by_slot(self, links: Links, names: list[str], incarnation: str) -> list[str]:
        """Register namespaces of a shard where a slot is on its way elsewhere, perhaps for hours.

        Returns those that are registered now.
        """
        done: list[str] = []
        for part in self._topology.together(names):
            try:
                await self._reassertion.register(links, part, incarnation, _nothing)
                done += part
            except BackplaneUnavailableError as refused:
                if not is_half_moved(refused):
                    raise
        return done

    # -- after a rejoin --------------------------------------------------------------------

    async def everything(self, links: Links, incarnation: str, keep: Keep) -> None:
        """Register all that is owned under an incarnation; see :meth:`.LeaseObserver.register_all`.

        With several shards it ends when each one that is up is done or has failed; the rest is
        tried again later.
        """
        namespaces = self._table.namespaces()
        if not self._topology.spans:
            informed = [one for one in self._informed_in(namespaces) if _is_under(one, incarnation)]
            await self._reassertion.register(links, namespaces, incarnation, keep)
            await self._reassertion.doubtful(links, informed)
            return
        await self._cancel()
        self._due = set(namespaces)
        work = [
            asyncio.create_task(self._register(links, shard, names, incarnation))
            for shard, names in (await self._topology.by_shard(namespaces)).items()
            if shard.up
        ]
        try:
            left = set(work)
            while left:
                _, left = await asyncio.wait(left, timeout=self._timing.heartbeat / 2)
                await keep()
        finally:
            for task in work:
                task.cancel()
            outcomes = await asyncio.gather(*work, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                log.warning("not everything is registered again yet: %s", outcome)
        self._begin()


def _is_under(membership: Membership[Connection], incarnation: str) -> bool:
    """Whether an attempt that was cut off has registered a claim already; it is left out then."""
    return membership.claim is not None and membership.claim.incarnation == incarnation


async def _nothing() -> None:
    """Do nothing: the keeper renews the lease meanwhile."""
