"""Compares the registry with what nodes hold, and repairs it.

Nothing here trusts what it reads: other programs may have written it. The callers decide.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from time import monotonic
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.calls import Reply, answered, in_time, texts
from cluster_pool.backplane.claims import BATCH
from cluster_pool.backplane.directory import pages
from cluster_pool.backplane.script_calls import ComparedClaims
from cluster_pool.backplane.topology import Links, Topology
from cluster_pool.core.claims import Claim
from cluster_pool.core.events import COUNTER
from cluster_pool.core.history import HistoryRules, bounds_in
from cluster_pool.core.identity import Identity
from cluster_pool.core.ids import shown
from cluster_pool.core.keys import Keys
from cluster_pool.core.quiet import Quiet

log = logging.getLogger("cluster_pool.history")

SAID_AGAIN: Final = 86_400.0
"""Seconds between two warnings about the same two settings."""
_OWNER: Final = re.compile(rb"[\w.-]+#?", re.ASCII)
_COUNT: Final = re.compile(rb"-?\d{1,18}", re.ASCII)


class Holding(NamedTuple):
    """The claims of a node in a namespace.

    Attributes:
        size, checksum: the number of claims, and the sum of their times.
        sample: some of them, each of which is compared.
        profiles: the ids among these that have a profile, or had one, and the entry of each.
    """

    namespace: str
    size: int
    checksum: int
    sample: Sequence[tuple[str, Claim]]
    profiles: Sequence[tuple[str, bytes | None]] = ()


class Registered(NamedTuple):
    """The entries of a namespace in the registry.

    Attributes:
        size, checksum: those of one owner's claims.
        unaccounted: members beyond the sum of all counts, below 0 when some are missing.
        absent: whether a claim of the sample is not registered, or a profile.
        owners: the incarnations that have a count.
        unreadable: fields among the counts that are no counts.
    """

    size: int
    checksum: int
    unaccounted: int
    absent: bool
    owners: frozenset[str]
    unreadable: frozenset[bytes]


class Upkeep:
    """Reads and repairs the registry."""

    def __init__(
        self, topology: Topology, keys: Keys, identity: Identity, histories: HistoryRules
    ) -> None:
        self._topology = topology
        self._keys = keys
        self._identity = identity
        self._histories = histories
        self._quiet = Quiet(SAID_AGAIN)

    def compare(
        self,
        links: Links,
        incarnation: str,
        holdings: Sequence[Holding],
        deadline: float,
    ) -> Reply[tuple[list[str], list[str]]]:
        """The namespaces whose registered claims differ, and all owners in the given ones.

        The settings of histories are renewed, each of a namespace in which claims are held.
        """
        compared = {one.namespace: self._compared(one) for one in holdings}
        parts = list(self._topology.together(compared))
        calls = [
            links.script(
                script_calls.compare(
                    self._keys,
                    incarnation=incarnation,
                    counted_by=self._topology.of(part[0]).succession.digits if part else "",
                    holdings=[compared[name] for name in part],
                )
            )
            for part in parts
        ]
        told = [one for one in holdings if one.profiles]
        looks = [self._has_profiles(links, one) for one in told]

        def read(replies: list[Any]) -> tuple[list[str], list[str]]:
            differing: dict[str, None] = {}
            owners: dict[str, None] = {}
            for part, (places, found, histories) in zip(parts, replies[: len(parts)], strict=True):
                differing.update(dict.fromkeys(part[place - 1] for place in places))
                owners.update(dict.fromkeys(texts(found)))
                for place, bounds in zip(histories[::2], histories[1::2], strict=True):
                    self._warn_of_history(part[place - 1], bounds)
            for one, same in zip(told, replies[len(parts) :], strict=True):
                if not same:
                    differing[one.namespace] = None
            return list(differing), list(owners)

        return Reply(asyncio.gather(*calls, *looks), read, deadline)

    def _compared(self, holding: Holding) -> ComparedClaims:
        namespace, size, checksum, sample, _ = holding
        asked = self._histories.asked(namespace)
        claims = [(id, str(claim)) for id, claim in sample]
        return ComparedClaims(namespace, size, checksum, asked, claims)

    def _warn_of_history(self, namespace: str, bounds: bytes) -> None:
        """Another node asks for a larger history: log it, once a day for each pair."""
        standing, own = bounds_in(bounds), self._histories.of(namespace)
        if self._quiet.due((standing, own), monotonic()):
            log.warning(
                "namespace %s has %s, since another node asks for more than this one's %s",
                *(shown(namespace), standing, own),
            )

    def _has_profiles(self, links: Links, holding: Holding) -> Coroutine[Any, Any, bool]:
        """Whether the profiles of a sample are registered; the command is queued at once."""
        key = self._keys.profiles(holding.namespace)
        call = links.commands(key).call("HMGET", key, *[id for id, _ in holding.profiles])

        async def read() -> bool:
            try:
                entries: list[bytes | None] = await call
            except ResponseError as error:
                if not str(error).startswith("WRONGTYPE"):
                    raise
                return False
            return entries == [entry for _, entry in holding.profiles]

        return read()

    def look(
        self, links: Links, incarnation: str, holding: Holding, deadline: float
    ) -> Reply[Registered]:
        """Read the entries of one namespace. Raises when Redis refuses it."""
        members = self._keys.members(holding.namespace)
        commands = links.commands(members)
        ids = [id for id, _ in holding.sample]
        wanted = [str(claim).encode() for _, claim in holding.sample]
        calls = (
            commands.call("HGETALL", self._keys.owners(holding.namespace)),
            commands.call("HLEN", members),
            commands.call("HMGET", members, *(ids or [""])),
            *([self._has_profiles(links, holding)] if holding.profiles else []),
        )

        def read(replies: list[Any]) -> Registered:
            flat, listed, claims, *told = replies
            fields: dict[bytes, bytes] = dict(zip(flat[::2], flat[1::2], strict=True))
            for name in COUNTER:
                fields.pop(name.encode(), None)
            bad = {
                name
                for name, value in fields.items()
                if not (_OWNER.fullmatch(name) and _COUNT.fullmatch(value))
            }
            counts = {name.decode(): int(n) for name, n in fields.items() if name not in bad}
            total = sum(n for name, n in counts.items() if not name.endswith("#"))
            return Registered(
                counts.get(incarnation, 0),
                counts.get(f"{incarnation}#", 0),
                listed - total,
                (bool(ids) and claims != wanted) or not all(told),
                frozenset(name.removesuffix("#") for name in counts),
                frozenset(bad),
            )

        return Reply(asyncio.gather(*calls), read, deadline)

    async def unknown(
        self, links: Links, incarnations: Iterable[str], deadline: float
    ) -> tuple[set[str], bool]:
        """The incarnations of which nothing is known: no lease, no node, no pending reaping; and
        whether the reaping of another one is pending."""
        names = list(incarnations)
        if not names:
            return set(), False
        keys = self._keys
        commands = links.commands(keys.leases)
        calls = (
            commands.call("ZMSCORE", keys.leases, *names),
            commands.call("HMGET", keys.incarnations, *names),
            commands.call("HMGET", keys.dead, *names),
        )
        known = await answered(asyncio.gather(*calls), deadline)
        unknown = {name for name, *said in zip(names, *known, strict=True) if said == [None] * 3}
        return unknown, any(dead is not None for dead in known[2])

    async def entries_of(
        self, namespace: str, timeout: float
    ) -> AsyncIterator[tuple[bytes, bytes]]:
        """The fields and values of a namespace's hash of members, unchecked; ``timeout`` is for
        each page."""
        async for page in pages(self._topology, self._keys.members(namespace), timeout):
            for one in page:
                yield one

    async def discard(
        self,
        links: Links,
        namespace: str,
        entries: Sequence[tuple[bytes, bytes]],
        deadline: float,
    ) -> None:
        """Remove entries that are no claims from the members, unless they have changed since."""
        for at in range(0, len(entries), BATCH):
            call = script_calls.release(
                self._keys,
                namespace,
                node=self._identity.node_id,
                claims=[(*entry, "") for entry in entries[at : at + BATCH]],
            )
            await answered(links.script(call), deadline)

    async def forget_counts(
        self, links: Links, namespace: str, fields: Iterable[bytes], deadline: float
    ) -> None:
        """Remove fields that are no counts from the hash of counts."""
        if fields:
            key = self._keys.owners(namespace)
            await answered(links.commands(key).call("HDEL", key, *fields), deadline)

    async def correct(
        self,
        links: Links,
        namespace: str,
        incarnation: str,
        count: int,
        checksum: int,
        not_after: int,
        deadline: float,
    ) -> None:
        """Add to the registered count and checksum of one owner."""
        call = script_calls.correct(
            self._keys,
            namespace,
            not_after=not_after,
            incarnation=incarnation,
            count=count,
            checksum=checksum,
        )
        in_time(await answered(links.script(call), deadline))
