"""Who is a member, where, and which nodes there are: reading that a rejoin does not mislead.

A node that rejoins has two incarnations for a while. It registers its members under the new one,
claim by claim, before it gives the old one up; so nobody is ever without a living owner. But claims
and leases are read one after the other, and the rejoin may fall in between. Hence leases are read
after claims: an owner that has none then is dead for good, and what is registered for it in a later
reading is left over. What was read before that may have moved, and is read again.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Final

from cluster_pool.backplane.registry import Registry
from cluster_pool.core.claims import Claim
from cluster_pool.core.results import Member

READINGS: Final = 5
"""Readings at most of what changes from one to the next; the last of them is the answer then."""


class Directory:
    """Answers about the whole cluster, each from a few readings of the registry."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def count(self, namespace: str, deadline: float) -> int:
        """How many members a namespace has, those of dead nodes left out."""
        lost: set[str] = set()
        total = 0
        for _ in range(READINGS):
            counts = await self._registry.counts(namespace, deadline)
            if counts.keys() <= lost:
                return 0
            living = await self._registry.living(deadline)
            total = sum(counts[owner] for owner in counts.keys() & living.keys())
            unknown = counts.keys() - living.keys()
            if unknown <= lost:
                break
            lost |= unknown
        return total

    async def locate(self, namespace: str, id: str, deadline: float) -> Member | None:
        """Which living node owns an id."""
        lost: set[str] = set()
        while len(lost) < READINGS:
            claim = await self._registry.claim_of(namespace, id, deadline)
            if claim is None or claim.incarnation in lost:
                return None
            node = (await self._registry.living(deadline)).get(claim.incarnation)
            if node is not None:
                return Member(id, node)
            lost.add(claim.incarnation)
        return None

    async def members(self, namespace: str, timeout: float) -> AsyncIterator[Member]:
        """Members whose owner holds a lease, a page at a time; ``timeout`` is for each page."""
        loop = asyncio.get_running_loop()
        lost: set[str] = set()
        async for page in self._registry.claim_pages(namespace, timeout):
            nodes = await self._owners(namespace, page, lost, loop.time() + timeout)
            for id, claim in page.items():
                node = nodes.get(claim.incarnation)
                if node is not None:
                    yield Member(id, node)

    async def _owners(
        self, namespace: str, page: dict[str, Claim], lost: set[str], deadline: float
    ) -> dict[str, str]:
        """The nodes by their living incarnations; claims of an owner that just died are renewed."""
        living = await self._registry.living(deadline)
        for _ in range(READINGS):
            unknown = {claim.incarnation for claim in page.values()} - living.keys() - lost
            if not unknown:
                break
            lost |= unknown
            ids = [id for id, claim in page.items() if claim.incarnation in unknown]
            page.update(await self._registry.claims(namespace, ids, deadline))
            living = await self._registry.living(deadline)
        return living

    async def namespaces(self, deadline: float) -> list[str]:
        """The namespaces that have members of living nodes, sorted."""
        found: list[str] = []
        for _ in range(READINGS):
            living = await self._registry.living(deadline)
            noted = await asyncio.gather(
                *[self._registry.namespaces_of(incarnation, deadline) for incarnation in living]
            )
            names = sorted(set().union(*noted))
            found = await self._registry.populated(names, living, deadline)
            if (await self._registry.living(deadline)).keys() <= living.keys():
                break
        return found

    async def nodes(self, deadline: float) -> dict[str, tuple[str, str, float]]:
        """Living nodes by id: their present incarnation, info as JSON, and seconds of its lease.

        Of two incarnations of a node the present one is that whose lease ends later: the other is
        not renewed any more.
        """
        nodes: dict[str, tuple[str, str, float]] = {}
        for _ in range(READINGS):
            infos = await self._registry.infos(deadline)
            nodes.clear()
            for incarnation, (node_id, info, left) in infos.items():
                if node_id not in nodes or left >= nodes[node_id][2]:
                    nodes[node_id] = (incarnation, info, left)
            if all(left for _, _, left in nodes.values()):
                break
        return nodes
