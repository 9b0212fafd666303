"""What the registry is compared and put right with: its upkeep, beside its use.

Everything here expects that what it reads may be anything. Nothing here decides.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, Final, NamedTuple

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.calls import Reply, answered, texts
from cluster_pool.backplane.claims import BATCH
from cluster_pool.backplane.directory import pages
from cluster_pool.backplane.generation import Generation
from cluster_pool.backplane.script_calls import ComparedClaims
from cluster_pool.backplane.topology import Topology
from cluster_pool.core.claims import Claim
from cluster_pool.core.events import COUNTER
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys

_OWNER: Final = re.compile(rb"[\w.-]+#?", re.ASCII)
_COUNT: Final = re.compile(rb"-?\d{1,18}", re.ASCII)


class Holding(NamedTuple):
    """What a node holds in a namespace.

    Attributes:
        size, checksum: how many claims it has there, and the sum of their times.
        sample: some of them, of which each is looked at.
    """

    namespace: str
    size: int
    checksum: int
    sample: Sequence[tuple[str, Claim]]


class Registered(NamedTuple):
    """What is registered in a namespace.

    Attributes:
        size, checksum: of one owner's claims.
        unaccounted: members listed beyond all counts, less than 0 when some are missing.
        absent: whether a claim of the sample is not listed.
        owners: the incarnations that have a count.
        unreadable: fields of the counts that are none.
    """

    size: int
    checksum: int
    unaccounted: int
    absent: bool
    owners: frozenset[str]
    unreadable: frozenset[bytes]


class Upkeep:
    """The registry as whoever puts it right sees it."""

    def __init__(self, topology: Topology, keys: Keys, identity: Identity) -> None:
        self._topology = topology
        self._keys = keys
        self._identity = identity

    def compare(
        self,
        generation: Generation,
        incarnation: str,
        holdings: Sequence[Holding],
        deadline: float,
    ) -> Reply[tuple[list[str], list[str]]]:
        """The namespaces in which something else is registered, and the owners in all of them."""
        compared = [
            ComparedClaims(
                one.namespace,
                one.size,
                one.checksum,
                [(id, str(claim)) for id, claim in one.sample],
            )
            for one in holdings
        ]
        call = generation.script(
            script_calls.compare(self._keys, incarnation=incarnation, holdings=compared)
        )

        def read(reply: list[Any]) -> tuple[list[str], list[str]]:
            places, owners = reply
            return [holdings[place - 1].namespace for place in places], texts(owners)

        return Reply(call, read, deadline)

    def look(
        self, generation: Generation, incarnation: str, holding: Holding, deadline: float
    ) -> Reply[Registered]:
        """What is registered in one namespace. Raises when Redis refuses it."""
        members = self._keys.members(holding.namespace)
        commands = generation.commands(members)
        ids = [id for id, _ in holding.sample]
        wanted = [str(claim).encode() for _, claim in holding.sample]
        calls = (
            commands.call("HGETALL", self._keys.owners(holding.namespace)),
            commands.call("HLEN", members),
            commands.call("HMGET", members, *(ids or [""])),
        )

        def read(replies: list[Any]) -> Registered:
            flat, listed, claims = replies
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
                bool(ids) and claims != wanted,
                frozenset(name.removesuffix("#") for name in counts),
                frozenset(bad),
            )

        return Reply(asyncio.gather(*calls), read, deadline)

    async def unknown(
        self, generation: Generation, incarnations: Iterable[str], deadline: float
    ) -> set[str]:
        """Those of whom nothing is known: no lease, no node, nobody who would reap them."""
        names = list(incarnations)
        if not names:
            return set()
        keys = self._keys
        commands = generation.commands(keys.leases)
        calls = (
            commands.call("ZMSCORE", keys.leases, *names),
            commands.call("HMGET", keys.incarnations, *names),
            commands.call("HMGET", keys.dead, *names),
        )
        known = await answered(asyncio.gather(*calls), deadline)
        return {name for name, *said in zip(names, *known, strict=True) if said == [None] * 3}

    async def entries_of(
        self, namespace: str, timeout: float
    ) -> AsyncIterator[tuple[bytes, bytes]]:
        """What stands in the hash of a namespace's members, whatever it is; ``timeout`` is for each
        page of it."""
        shard = self._topology.of(namespace)
        async for page in pages(shard, self._keys.members(namespace), timeout):
            for one in page:
                yield one

    async def discard(
        self,
        generation: Generation,
        namespace: str,
        entries: Sequence[tuple[bytes, bytes]],
        deadline: float,
    ) -> None:
        """Remove what is listed as members and is none, unless it has changed since."""
        for at in range(0, len(entries), BATCH):
            call = script_calls.release(
                self._keys,
                namespace,
                node=self._identity.node_id,
                claims=entries[at : at + BATCH],
            )
            await answered(generation.script(call), deadline)

    async def forget_counts(
        self, generation: Generation, namespace: str, fields: Iterable[bytes], deadline: float
    ) -> None:
        """Remove fields that are no counts."""
        if fields:
            key = self._keys.owners(namespace)
            await answered(generation.commands(key).call("HDEL", key, *fields), deadline)

    async def correct(
        self,
        generation: Generation,
        namespace: str,
        incarnation: str,
        count: int,
        checksum: int,
        deadline: float,
    ) -> None:
        """Add to the registered count and checksum of one owner."""
        call = script_calls.correct(
            self._keys, namespace, incarnation=incarnation, count=count, checksum=checksum
        )
        await answered(generation.script(call), deadline)
