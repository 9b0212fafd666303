"""Compares the registry with the claims of this node, a part of the namespaces at each heartbeat.

A part is a thousand namespaces, or a tenth of all if that is more: 100,000 are compared within ten
heartbeats, by a hundred calls of a hundred namespaces in each, spread over half a heartbeat. On a
cluster a call is for one slot: namespaces of a slot are in the same part, and take one call. A
comparison is of the count, the checksum, the number of members, and some of the claims. A namespace
that differs is looked at more closely, twice, a part of a heartbeat apart: a difference that is
then still the same is drift, and is repaired. Claims of this node are asserted; entries that this
node does not hold, that are no claims, or whose owner is unknown are removed; counts are corrected.
"""

import asyncio
import logging
import random
from collections.abc import Iterable
from typing import NamedTuple

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.claims import Claims
from cluster_pool.backplane.reaping import Reaping
from cluster_pool.backplane.refusals import is_half_moved
from cluster_pool.backplane.topology import Links, Topology
from cluster_pool.backplane.upkeep import Holding, Upkeep
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.core.claims import CHECKSUM_MODULUS, Claim
from cluster_pool.core.config import Timing
from cluster_pool.core.ids import shown
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.comparison")

AT_LEAST = 1000
"""Namespaces that are compared at each heartbeat, at least, if there are as many."""
HEARTBEATS = 10
"""Heartbeats in which all namespaces are compared."""
CALL = 100
"""Namespaces per call."""
SAMPLE = 10
"""Claims of a namespace that are compared each time."""
SPREAD = 0.5
"""The part of a heartbeat over which the calls are spread."""
AGAIN = 0.2
"""The part of a heartbeat after which a difference is looked at again."""
LOOKS = 5
"""Times that a namespace is looked at again before its count is put right."""
REPAIRS = 16
"""Namespaces that are looked at closely, or repaired, at the same time."""


class Difference(NamedTuple):
    """The difference between the registry and the claims of this node in one namespace.

    Attributes:
        size, checksum: those of this node's claims, minus the registered ones.
        absent: whether a claim of this node is not registered.
        unaccounted: members that are in no owner's count.
        unknown: owners of which nothing is known.
        unreadable: fields among the counts that are no counts.
    """

    size: int
    checksum: int
    absent: bool
    unaccounted: int
    unknown: frozenset[str]
    unreadable: frozenset[bytes]

    @property
    def own(self) -> bool:
        """Whether claims of this node are registered wrongly."""
        return bool(self.size or self.checksum or self.absent)


class Reconciler:
    """Compares and repairs the namespaces of this node, in turn, for ever."""

    def __init__(
        self,
        topology: Topology,
        claims: Claims,
        upkeep: Upkeep,
        reaping: Reaping,
        ownership: Ownership,
        lease: LeaseState,
        timing: Timing,
        counters: Counters,
    ) -> None:
        self._topology = topology
        self._claims = claims
        self._upkeep = upkeep
        self._reaping = reaping
        self._ownership = ownership
        self._lease = lease
        self._timing = timing
        self._counters = counters
        self._to_visit: list[str] = []
        self._size = AT_LEAST
        self._left: dict[str, Difference] = {}
        """Differences that the last repair could not change; other nodes repair them."""
        self._wrong: set[str] = set()
        self._doubted: set[str] = set()
        """Namespaces to compare next, until nothing was wrong there and every owner was known to
        live. Those that are not held any more get no other turn."""
        self._task: asyncio.Task[None] | None = None

    @property
    def clean(self) -> bool:
        """Whether no claim of this node is known to be registered wrongly."""
        return not self._wrong

    def begin(self) -> None:
        """Compare the next part, unless the last one is still being compared."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._compare(), name="cluster_pool comparison")

    async def stop(self) -> None:
        """End, even in the middle of a comparison."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _compare(self) -> None:
        try:
            links = await self._topology.connected(self._deadline())
            suspects = await self._suspects(links, await self._next_part())
            if suspects:
                await self._judge(links, suspects)
        except BackplaneUnavailableError as error:
            log.debug("not compared: %s", error)
        except Exception:
            log.exception("a comparison failed by itself")

    async def _next_part(self) -> list[str]:
        """The namespaces that were wrong last time, those in doubt, and the next part.

        Those of a shard that is down, or that is being restored, are left for later.
        """
        if not self._to_visit:
            self._to_visit = await self._topology.in_calls(self._ownership.namespaces())
            self._size = max(AT_LEAST, -(-len(self._to_visit) // HEARTBEATS))
        part, self._to_visit = self._to_visit[: self._size], self._to_visit[self._size :]
        self._doubted |= self._ownership.releases.pop_doubted()
        names = dict.fromkeys([*self._wrong, *self._doubted, *part])
        return [one for one in names if not self._topology.spans or self._is_comparable(one)]

    def _is_comparable(self, namespace: str) -> bool:
        """Whether a difference in it would be drift."""
        restoration = self._ownership.restoration
        return self._topology.of(namespace).up and not restoration.is_due(namespace)

    # -- comparing -------------------------------------------------------------------------

    async def _suspects(self, links: Links, names: list[str]) -> list[str]:
        """The namespaces that differ or may have an owner of which nothing is known."""
        incarnation = self._lease.incarnation
        parts = [names[at : at + CALL] for at in range(0, len(names), CALL)]
        suspects: dict[str, None] = {}
        for part in parts:
            deadline = self._deadline()
            held = [name for name in part if self._ownership.holds(name)]
            noting = self._claims.add_namespaces(links, incarnation, held, deadline)
            holdings = [self._holding(name) for name in part]
            comparing = self._upkeep.compare(links, incarnation, holdings, deadline)
            try:
                _, (differing, owners) = await asyncio.gather(noting, comparing)
            except BackplaneUnavailableError as error:
                if not is_half_moved(error):
                    raise
                log.debug("not compared: %s", error)  # others do not wait for that slot
                continue
            strangers, sure = await self._strangers(links, owners)
            if strangers:
                differing = part
            suspects.update(dict.fromkeys(differing))
            same = set(part) - set(differing)
            self._wrong -= same
            if sure:
                self._doubted -= same
            await asyncio.sleep(self._timing.heartbeat * SPREAD / len(parts) if parts[1:] else 0)
        return list(suspects)

    def _holding(self, namespace: str) -> Holding:
        held = self._ownership.owned(namespace)  # may be 100,000: no claim is made of each
        checksum = sum([one.claimed_at % CHECKSUM_MODULUS for one in held])
        sample = random.sample(held, min(SAMPLE, len(held)))
        still = [one for one in sample if not self._ownership.moves(namespace, one.id)]
        steady = [(one.id, one.claim) for one in still if one.claim]
        profiles = self._ownership.profiles(namespace, [id for id, _ in steady])
        return Holding(namespace, len(held), checksum, steady, profiles)

    async def _strangers(self, links: Links, owners: Iterable[str]) -> tuple[set[str], bool]:
        """The owners of which nothing is known, and whether no other one may become such.

        None are called so while nodes may not have joined again yet. One that is still to be reaped
        may keep what a failover has brought back: its node had noted that the namespace was left.
        """
        others = set(owners) - {self._lease.incarnation}
        if not self._lease.may_judge():
            return set(), not others
        unknown, dying = await self._upkeep.unknown(links, others, self._deadline())
        return unknown, not dying

    async def _differences(self, links: Links, names: list[str]) -> dict[str, Difference]:
        """The differences of namespaces that have one."""
        differences: dict[str, Difference] = {}
        for at in range(0, len(names), REPAIRS):
            part = names[at : at + REPAIRS]
            found = await asyncio.gather(*[self._difference(links, name) for name in part])
            differences.update({name: one for name, one in zip(part, found, strict=True) if one})
        return differences

    async def _difference(self, links: Links, name: str) -> Difference | None:
        before = self._holding(name)
        registered = await self._upkeep.look(
            links, self._lease.incarnation, before, self._deadline()
        )
        strangers, _ = await self._strangers(links, registered.owners)
        held = self._holding(name)
        difference = Difference(
            held.size - registered.size,
            held.checksum - registered.checksum,
            registered.absent,
            registered.unaccounted,
            frozenset(strangers),
            registered.unreadable,
        )
        return difference if any(difference) else None

    async def _steady_difference(self, links: Links, name: str) -> tuple[Difference | None, bool]:
        """The difference of a namespace, and whether it was the same twice.

        While members come and go, what differs at one look may only be on its way.
        """
        now = await self._difference(links, name)
        for _ in range(LOOKS):
            before, now = now, await self._difference(links, name)
            if now == before:
                return now, True
        return now, False

    # -- repairing -------------------------------------------------------------------------

    async def _judge(self, links: Links, suspects: list[str]) -> None:
        first = await self._differences(links, suspects)
        self._wrong.difference_update(set(suspects) - set(first))
        await asyncio.sleep(self._timing.heartbeat * AGAIN)
        second = await self._differences(links, list(first))
        drifted = [
            name
            for name, difference in second.items()
            if first[name] == difference != self._left.get(name)
        ]
        self._doubted.update(
            name
            for name, difference in second.items()
            if first[name] != difference and not self._ownership.holds(name)
        )
        self._left = {name: one for name, one in self._left.items() if second.get(name) == one}
        if not drifted:
            return
        self._wrong.update(name for name in drifted if second[name].own)
        log.warning(
            "the registry of %d namespaces has drifted, %s among them: repairing it",
            len(drifted),
            shown(drifted[0]),
        )
        for at in range(0, len(drifted), REPAIRS):
            part = drifted[at : at + REPAIRS]
            await asyncio.gather(*[self._repair(links, name) for name in part])

    async def _repair(self, links: Links, namespace: str) -> None:
        incarnation = self._lease.incarnation
        self._counters.repaired += 1
        await self._ownership.assert_namespace(links, namespace, incarnation)
        strangers = await self._clean(links, namespace, incarnation)
        left = await self._difference(links, namespace)
        if left is not None:
            await self._upkeep.forget_counts(links, namespace, left.unreadable, self._deadline())
            for stranger in left.unknown | strangers:
                await self._reaping.clear(
                    namespace, stranger, "", self._timing.timeout, counted=False
                )
            left, steady = await self._steady_difference(links, namespace)
            if not steady:
                return  # the next heartbeat looks again
        if left is not None and (left.size or left.checksum):
            await self._correct(links, namespace, incarnation, left)
            left = await self._difference(links, namespace)
        if left is None or not left.own:
            self._wrong.discard(namespace)
        if left is not None:
            self._left[namespace] = left

    async def _correct(
        self, links: Links, namespace: str, incarnation: str, left: Difference
    ) -> None:
        """Add what differs to the counts, while the lease of that incarnation lasts.

        Later it may be reaped, and what is added would be the count of an owner that is gone.
        """
        if self._lease.incarnation != incarnation:
            return
        deadline = self._deadline()
        left_of_lease = asyncio.get_running_loop().time() + self._lease.seconds_left()
        not_after = self._topology.of(namespace).clock.at(min(deadline, left_of_lease))
        await self._upkeep.correct(
            links, namespace, incarnation, left.size, left.checksum, not_after, deadline
        )

    async def _clean(self, links: Links, namespace: str, incarnation: str) -> set[str]:
        """Remove entries that are no claims, or claims of this node that it does not hold.

        Returns the owners in the namespace of which nothing is known.
        """
        strays: list[tuple[bytes, bytes]] = []
        others: set[str] = set()
        async for id, value in self._upkeep.entries_of(namespace, self._timing.timeout):
            claim = Claim.parse(value)
            if claim is None:
                strays.append((id, value))
            elif claim.incarnation != incarnation:
                others.add(claim.incarnation)
            elif not self._ownership.knows(namespace, id.decode(errors="replace"), claim.nonce):
                strays.append((id, value))
        if strays:
            await self._upkeep.discard(links, namespace, strays, self._deadline())
        strangers, _ = await self._strangers(links, others)
        return strangers

    def _deadline(self) -> float:
        return deadline_in(self._timing.timeout)
