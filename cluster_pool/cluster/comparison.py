"""Does the registry say what this node holds? A slice of namespaces at each heartbeat.

Compared by count and checksum. A difference that is still the same a heartbeat later is drift, from
whatever cause, and is repaired: what is held is asserted, what is not held is released, the count
is put right, and what belongs to an owner of whom nothing is known is removed.
"""

import asyncio
import logging
from collections.abc import Iterable

from cluster_pool.backplane.link import Link
from cluster_pool.backplane.registry import Registry
from cluster_pool.backplane.session import Session
from cluster_pool.cluster.lease import Lease
from cluster_pool.cluster.membership import Membership
from cluster_pool.core.claims import CHECKSUM_MODULUS, Claim
from cluster_pool.core.config import Timing
from cluster_pool.core.ids import shown
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.comparison")

SLICE_NAMESPACES = 100
SLICE_MEMBERS = 5000

Difference = tuple[int, int, int, frozenset[str]]
"""Of the own count, of the own checksum, members that no owner has counted, unknown owners."""


class Comparison:
    """Walks through the namespaces that this node holds, round and round."""

    def __init__(
        self,
        session: Session,
        registry: Registry,
        membership: Membership,
        lease: Lease,
        timing: Timing,
        counters: Counters,
    ) -> None:
        self._session = session
        self._registry = registry
        self._membership = membership
        self._lease = lease
        self._timing = timing
        self._counters = counters
        self._suspects: dict[str, Difference] = {}
        self._to_visit: list[str] = []
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Compare the next slice, unless the last one is still being compared."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._compare(), name="cluster_pool comparison")

    async def stop(self) -> None:
        """End, in the middle if need be."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _compare(self) -> None:
        try:
            link = await self._session.link_by(self._deadline())
            incarnation = self._lease.incarnation
            suspects, self._suspects = self._suspects, {}
            names = list(dict.fromkeys([*suspects, *self._next_slice()]))
            await self._registry.enlist(link, incarnation, names, self._deadline())
            for namespace, difference in (await self._differences(link, names)).items():
                if suspects.get(namespace) == difference:
                    await self._repair(link, namespace)
                else:
                    self._suspects[namespace] = difference
        except BackplaneUnavailableError as error:
            log.debug("not compared: %s", error)
        except Exception:
            log.exception("a comparison failed by itself")

    def _next_slice(self) -> list[str]:
        if not self._to_visit:
            self._to_visit = self._membership.namespaces()
        taken: list[str] = []
        members = 0
        while self._to_visit and len(taken) < SLICE_NAMESPACES and members < SLICE_MEMBERS:
            namespace = self._to_visit.pop()
            members += len(self._membership.owned(namespace))
            taken.append(namespace)
        return taken

    async def _differences(self, link: Link, names: Iterable[str]) -> dict[str, Difference]:
        """What is held less what is registered, for each namespace where that is not nothing."""
        names = list(names)
        found = await asyncio.gather(*[self._difference(link, name) for name in names])
        return {name: one for name, one in zip(names, found, strict=True) if any(one)}

    async def _difference(self, link: Link, name: str) -> Difference:
        count, checksum, unaccounted, unknown = await self._registry.tally_of(
            link, name, self._lease.incarnation, self._deadline()
        )
        held = self._membership.owned(name)
        own = sum(claim.time % CHECKSUM_MODULUS for claim in held.values())
        others = unknown - {self._lease.incarnation}
        return len(held) - count, own - checksum, unaccounted, others

    async def _repair(self, link: Link, namespace: str) -> None:
        incarnation = self._lease.incarnation
        log.warning("the registry of %s has drifted: repairing it", shown(namespace))
        self._counters.repaired += 1
        await self._membership.assert_namespace(link, namespace, incarnation)
        strays = await self._strays(namespace, incarnation)
        if strays:
            await self._registry.release(link, namespace, strays, self._deadline())
        left = (await self._differences(link, [namespace])).get(namespace)
        if left is not None:
            count, checksum, _, unknown = left
            for ghost in unknown:
                await self._registry.clear(namespace, ghost, "", self._timing.timeout)
            if count or checksum:
                self._registry.correct(link, namespace, incarnation, count, checksum)

    async def _strays(self, namespace: str, incarnation: str) -> list[tuple[str, Claim]]:
        """Registered as ours, and not ours."""
        strays = []
        async for id, claim in self._registry.claims_of(namespace, self._timing.timeout):
            if claim.incarnation == incarnation and not self._membership.knows(
                namespace, id, claim.nonce
            ):
                strays.append((id, claim))
        return strays

    def _deadline(self) -> float:
        return asyncio.get_running_loop().time() + self._timing.timeout
