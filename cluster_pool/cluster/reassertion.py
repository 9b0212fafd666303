"""Registers this node's claims again: after a rejoin, after drift, and when there is doubt.

Claims are asserted with their original tokens. A membership whose id another node has won with a
greater token is passed to ``evict``, which closes its connection. One for whose id messages were
parked in a history, while it was taken for gone, is closed: its client comes back for them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.claims import BATCH, PAGE, Claims, Standing
from cluster_pool.backplane.in_steps import overlapped
from cluster_pool.backplane.topology import Links, Topology
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.lease_keeper import Keep
from cluster_pool.cluster.namespaces import Namespaces
from cluster_pool.core.claims import CHECKSUM_MODULUS
from cluster_pool.core.closing import TRY_AGAIN_LATER
from cluster_pool.core.config import Timing
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership
from cluster_pool.local.outbox import kick
from cluster_pool.local.profiles import told_of
from cluster_pool.local.table import ConnectionTable

T = TypeVar("T")

WINDOW = 16
"""Full calls in flight together; between two windows the lease is renewed if that is due."""
SMALL = 160
"""Calls in flight together if they are small, as those of a Redis Cluster: 10 ms of Redis."""
STEP = WINDOW * BATCH
"""Namespaces that are looked at together, before other tasks run."""

Group = tuple[str, list[Membership[Connection]]]


class Reassertion:
    """Asserts the claims of the table in the registry, batch by batch."""

    def __init__(
        self,
        topology: Topology,
        claims: Claims,
        namespaces: Namespaces,
        table: ConnectionTable,
        timing: Timing,
        lease: LeaseState,
        evict: Callable[[Membership[Connection]], None],
    ) -> None:
        self._topology = topology
        self._claims = claims
        self._namespaces = namespaces
        self._table = table
        self._timing = timing
        self._lease = lease
        self._evict = evict

    async def register(
        self, links: Links, namespaces: list[str], incarnation: str, keep: Keep
    ) -> None:
        """Register the owned claims of some namespaces under an incarnation, and list these.

        ``keep`` renews the lease in between. An earlier attempt under the same incarnation, which
        was cut off, may have registered some claims: they are not asserted again, so that each
        attempt gets further. But another node may have taken over one of those while this node
        heard nothing. So at the end the count and checksum of their namespaces are compared, and
        namespaces that differ are asserted as a whole. Later takeovers are heard: this generation
        subscribed before the first comparison.

        Raises BackplaneUnavailableError; the next attempt does the rest.
        """
        standing: list[str] = []
        await overlapped(self._missing(links, incarnation, namespaces, keep, standing))
        compared = overlapped(self._compared(links, incarnation, standing, keep))
        for changed in await compared:
            owned = [self._owned(name) for name in changed]
            await self._register(links, incarnation, owned, keep)

    async def _missing(
        self, links: Links, incarnation: str, namespaces: list[str], keep: Keep, standing: list[str]
    ) -> AsyncIterator[Coroutine[Any, Any, None]]:
        """Steps that register what is not registered under the incarnation; the namespaces where
        some claims are, are added to ``standing``."""
        for names in pieces(namespaces, STEP):
            groups, others = self._sorted(names, incarnation)
            standing += others
            yield self._register(links, incarnation, groups, keep)
            await asyncio.sleep(0)  # nothing is awaited where all claims stand

    async def _compared(
        self, links: Links, incarnation: str, standing: list[str], keep: Keep
    ) -> AsyncIterator[Coroutine[Any, Any, list[str]]]:
        for names in pieces(standing, STEP):
            yield self._changed(links, incarnation, names, keep)

    async def namespace(self, links: Links, namespace: str, incarnation: str) -> None:
        """Register the owned claims of one namespace once more."""
        for batch in self._claims.packed([self._owned(namespace)]):
            await self._batch(links, incarnation, batch)

    async def doubtful(self, links: Links, memberships: Iterable[Membership[Connection]]) -> bool:
        """Assert some memberships; False if Redis did not answer in time. If the generation ends
        now, the rejoin asserts them again."""
        groups: dict[str, list[Membership[Connection]]] = {}
        for membership in dict.fromkeys(memberships):
            if membership.claim is not None:
                groups.setdefault(membership.namespace, []).append(membership)
        incarnation = self._lease.incarnation
        batches = self._claims.packed(groups.items())
        try:
            await asyncio.gather(*[self._batch(links, incarnation, one) for one in batches])
        except BackplaneUnavailableError:
            return False
        return True

    # -- owned claims ----------------------------------------------------------------------

    def _owned(self, namespace: str) -> Group:
        members = self._table.namespace(namespace) or {}
        return namespace, [one for one in members.values() if self._is_asserted(one)]

    def _is_asserted(self, membership: Membership[Connection]) -> bool:
        """Whether its claim must be registered.

        With several shards releases are not awaited first: departing memberships stay out.
        """
        departs = self._topology.spans and membership.departure is not None
        return membership.claim is not None and not departs

    def _sorted(self, names: Iterable[str], incarnation: str) -> tuple[list[Group], list[str]]:
        """Memberships not registered under the incarnation yet; namespaces where some are."""
        groups: list[Group] = []
        standing: list[str] = []
        for name in names:
            _, owned = self._owned(name)
            missing = [one for one in owned if one.claim and one.claim.incarnation != incarnation]
            if missing:
                groups.append((name, missing))
            if len(missing) < len(owned):
                standing.append(name)
        return groups, standing

    async def _changed(
        self, links: Links, incarnation: str, names: list[str], keep: Keep
    ) -> list[str]:
        """The namespaces whose registered count or checksum differs from the owned claims."""
        calls = [
            self._claims.tallies(links, part, incarnation, self._deadline())
            for part in pieces(names, PAGE)
        ]
        registered = [tally for part in await asyncio.gather(*calls) for tally in part]
        await keep()
        return [
            name
            for name, tally in zip(names, registered, strict=True)
            if tally != self._tally(name)
        ]

    def _tally(self, namespace: str) -> tuple[int, int]:
        claims = [one.claim for one in self._owned(namespace)[1] if one.claim is not None]
        times = [claim.time % CHECKSUM_MODULUS for claim in claims]
        return len(times), sum(times)

    # -- asserting -------------------------------------------------------------------------

    async def _register(
        self, links: Links, incarnation: str, groups: list[Group], keep: Keep
    ) -> None:
        names = [name for name, _ in groups]
        await self._namespaces.add_before_claims(links, incarnation, names, self._deadline())
        for window in windows(self._claims.packed(groups)):
            await asyncio.gather(*[self._batch(links, incarnation, batch) for batch in window])
            await keep()

    def _batch(
        self, links: Links, incarnation: str, batch: list[Group]
    ) -> Coroutine[Any, Any, None]:
        """Assert the claims of a batch that are still owned; some may have been released since."""
        owned = [
            (name, [(one, one.claim) for one in part if one.claim and self._is_asserted(one)])
            for name, part in batch
        ]
        owned = [(name, part) for name, part in owned if part]
        if not owned:
            return _nothing()
        deadline = self._deadline()
        left = asyncio.get_running_loop().time() + self._lease.seconds_left()
        not_after = self._topology.of(owned[0][0]).clock.at(min(deadline, left))
        groups = [(name, [(one.id, claim) for one, claim in part]) for name, part in owned]
        told = told_of(one for _, part in owned for one, _ in part)
        reply = self._claims.assert_claims(links, incarnation, groups, not_after, deadline, told)

        async def read() -> None:
            answers = iter(await reply)
            for namespace, part in owned:
                unwanted = []
                for membership, claim in part:
                    kept = next(answers)
                    if membership.claim is None:
                        if kept:  # released meanwhile, and registered again by this batch
                            here = claim._replace(incarnation=incarnation)
                            unwanted.append((membership.id, here, ""))
                    elif kept:
                        membership.claim = claim._replace(incarnation=incarnation)
                        if kept is Standing.MISSED:
                            kick(membership.connection, TRY_AGAIN_LATER, "messages were missed")
                    elif kept is not None:
                        self._evict(membership)
                if unwanted:
                    await self._claims.release(links, namespace, unwanted, deadline)

        return read()

    def _deadline(self) -> float:
        return deadline_in(self._timing.timeout)


async def _nothing() -> None:
    """The reply to an empty batch."""


def windows(batches: Iterable[list[Group]]) -> Iterator[list[list[Group]]]:
    """Calls that are in flight together: few that are full, or more that are small."""
    window: list[list[Group]] = []
    claims = 0
    for batch in batches:
        window.append(batch)
        claims += sum(len(part) for _, part in batch)
        if claims >= WINDOW * BATCH or len(window) >= SMALL:
            yield window
            window, claims = [], 0
    if window:
        yield window


def pieces(items: list[T], size: int) -> Iterator[list[T]]:
    """Parts of a list, of at most ``size`` items."""
    for at in range(0, len(items), size):
        yield items[at : at + size]
