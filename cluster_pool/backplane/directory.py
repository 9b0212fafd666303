"""Reads members, their owners and the nodes of a cluster, correctly also while a node rejoins.

A node that rejoins has two incarnations for a while. It registers its members under the new one,
claim by claim, before it gives up the old one, so every member has a living owner all the time. But
claims and leases are read one after the other, and the rejoin may fall in between. Hence leases are
read after claims: an owner without a lease is then dead for good, and its claims in a later reading
are leftovers. Its claims in an earlier reading may have moved, and are read again.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Final

from redis.exceptions import ResponseError

from cluster_pool.backplane.calls import answered, pairs, text_of
from cluster_pool.backplane.claims import PAGE, Claims
from cluster_pool.backplane.leases import Leases
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.succession import UNSURE
from cluster_pool.backplane.topology import Topology
from cluster_pool.core.claims import Claim
from cluster_pool.core.ids import is_reserved
from cluster_pool.core.keys import Keys
from cluster_pool.core.profiles import Profile, read_entry
from cluster_pool.core.results import Member
from cluster_pool.exceptions import BackplaneUnavailableError

AGAIN: Final = 0.1
"""Seconds until a claim is read again that may be registered soon."""
READINGS: Final = 5
"""Readings at most, if data changes from one to the next; the last one is then the answer."""

_COUNT: Final = re.compile(r"\d{1,9}", re.ASCII)


class Directory:
    """Answers about the whole cluster, each from a few readings of leases and claims."""

    def __init__(self, topology: Topology, keys: Keys, leases: Leases, claims: Claims) -> None:
        self._topology = topology
        self._keys = keys
        self._leases = leases
        self._claims = claims

    async def count(self, namespace: str, deadline: float) -> int:
        """The number of members of a namespace, without those of dead nodes."""
        return (await self.counts_of((namespace,), deadline))[namespace]

    async def counts_of(self, namespaces: Sequence[str], deadline: float) -> dict[str, int]:
        """The number of members of each of many namespaces, without those of dead nodes."""
        found: dict[str, int] = {}
        for at in range(0, len(namespaces), PAGE):
            found |= await self._counts_of_page(namespaces[at : at + PAGE], deadline)
        return found

    async def _counts_of_page(self, page: Sequence[str], deadline: float) -> dict[str, int]:
        """As :meth:`counts_of`; namespaces with owners that just died are read again."""
        await self.patient(page, deadline)
        lost: set[str] = set()
        found: dict[str, int] = {}
        for _ in range(READINGS):
            counts, living = await self._counts_and_leases(page, deadline)
            unknown: set[str] = set()
            again = []
            for namespace, owners in zip(page, counts, strict=True):
                found[namespace] = sum(owners[one] for one in owners.keys() & living)
                if not owners.keys() - living <= lost:
                    again.append(namespace)
                    unknown |= owners.keys() - living
            if not again:
                break
            page, lost = again, lost | unknown
        return found

    async def _counts_and_leases(
        self, namespaces: Sequence[str], deadline: float
    ) -> tuple[list[dict[str, int]], set[str]]:
        """The counts of namespaces, and the incarnations that hold a lease after that.

        One Redis reads in the order in which commands are queued: there it is one round trip.
        """
        counts = asyncio.gather(*[self.counts(name, deadline) for name in namespaces])
        if self._topology.spans:
            return await counts, await self._leases.held(deadline)
        return await asyncio.gather(counts, self._leases.held(deadline))

    async def patient(self, namespaces: Iterable[str], deadline: float) -> None:
        """Wait while members or leases may be lost and registered again soon."""
        shards = {self._topology.home, *map(self._topology.of, namespaces)}
        until = max(shard.succession.patient_until for shard in shards)
        wait = min(until, deadline - AGAIN) - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)

    async def locate(self, namespace: str, id: str, deadline: float) -> Member | None:
        """The member with an id and the living node that owns it, or None.

        Waits while its claim, or the lease of its owner, may be lost and registered again soon.

        Raises:
            BackplaneUnavailableError: Redis did not answer in time, or may have lost it.
        """
        loop = asyncio.get_running_loop()
        while True:
            node, claim, lacking = await self._owner(namespace, id, deadline)
            if node is not None and claim is not None:
                read = {id: claim}
                profiles, standing = await self._profiles(namespace, read, deadline)
                if standing == read:
                    return Member(id, node, *profiles[id])
                continue  # taken over, registered anew or released meanwhile
            now, servers = loop.time(), lacking.succession
            if now >= servers.unsure_until:
                return None
            if now >= min(servers.patient_until, deadline - AGAIN):
                raise BackplaneUnavailableError(UNSURE)
            await asyncio.sleep(AGAIN)

    async def _owner(
        self, namespace: str, id: str, deadline: float
    ) -> tuple[str | None, Claim | None, Shard]:
        """The living node that owns an id, if any, the claim, and the shard that lacks its claim or
        lease."""
        lost: set[str] = set()
        while len(lost) < READINGS:
            claim = await self.claim_of(namespace, id, deadline)
            if claim is None:
                return None, None, self._topology.of(namespace)
            if claim.incarnation in lost:
                break
            node = (await self._leases.living(deadline)).get(claim.incarnation)
            if node is not None:
                return node, claim, self._topology.home
            lost.add(claim.incarnation)
        return None, None, self._topology.home

    async def members(self, namespace: str, timeout: float) -> AsyncIterator[Member]:
        """Members whose owner holds a lease, a page at a time; ``timeout`` is for each page."""
        loop = asyncio.get_running_loop()
        lost: set[str] = set()
        deadline = loop.time() + timeout
        await self.patient((namespace,), deadline)
        async for page in self.claim_pages(namespace, timeout):
            while page:  # until the deadline, which ends the readings themselves
                nodes = await self._owners(namespace, page, lost, deadline)
                owned = {id: claim for id, claim in page.items() if claim.incarnation in nodes}
                profiles, standing = await self._profiles(namespace, owned, deadline)
                page = {}
                for id, claim in owned.items():
                    if standing.get(id) == claim:
                        yield Member(id, nodes[claim.incarnation], *profiles[id])
                    elif id in standing:  # taken over, or registered anew, meanwhile
                        page[id] = standing[id]
            deadline = loop.time() + timeout

    async def _owners(
        self, namespace: str, page: dict[str, Claim], lost: set[str], deadline: float
    ) -> dict[str, str]:
        """Living incarnations with their nodes; claims of owners that just died are read again."""
        living = await self._leases.living(deadline)
        for _ in range(READINGS):
            unknown = {claim.incarnation for claim in page.values()} - living.keys() - lost
            if not unknown:
                break
            lost |= unknown
            ids = [id for id, claim in page.items() if claim.incarnation in unknown]
            page.update(await self.claims(namespace, ids, deadline))
            living = await self._leases.living(deadline)
        return living

    async def namespaces(self, deadline: float) -> list[str]:
        """The namespaces that have members of living nodes, sorted, without the library's own."""
        found: list[str] = []
        for _ in range(READINGS):
            living = await self._leases.living(deadline)
            namespaces_of = self._claims.namespaces_of
            noted = await asyncio.gather(*[namespaces_of(one, lambda: deadline) for one in living])
            names = sorted(one for one in set[str]().union(*noted) if not is_reserved(one))
            found = await self.populated(names, living, deadline)
            if (await self._leases.living(deadline)).keys() <= living.keys():
                break
        return found

    async def nodes(self, deadline: float) -> dict[str, tuple[str, str, float]]:
        """Living nodes by id: their present incarnation, info as JSON, and seconds of its lease.

        If a node has two incarnations, the one whose lease ends later is the present one: the
        other is not renewed any more.
        """
        nodes: dict[str, tuple[str, str, float]] = {}
        for _ in range(READINGS):
            infos = await self._leases.infos(deadline)
            nodes.clear()
            for incarnation, (node_id, info, left) in infos.items():
                if node_id not in nodes or left >= nodes[node_id][2]:
                    nodes[node_id] = (incarnation, info, left)
            if all(left for _, _, left in nodes.values()):
                break
        return nodes

    # -- single readings, dead owners included ---------------------------------------------

    async def counts(self, namespace: str, deadline: float) -> dict[str, int]:
        """Members of a namespace per incarnation, dead ones included."""
        owners = self._keys.owners(namespace)
        reply = await self._topology.call(deadline, owners, "HGETALL", owners)
        return _counts(reply)

    async def populated(
        self, namespaces: Sequence[str], living: Collection[str], deadline: float
    ) -> list[str]:
        """The namespaces in which a living incarnation has members, in the order given.

        Counts are read in pipelines, a page per round trip. A namespace for which Redis replies
        with an error is left out.
        """
        found: list[str] = []
        for at in range(0, len(namespaces), PAGE):
            page = namespaces[at : at + PAGE]
            links = await self._topology.connected(deadline)
            owners = [self._keys.owners(name) for name in page]
            calls = [links.commands(key).call("HGETALL", key) for key in owners]
            replies = await answered(asyncio.gather(*calls, return_exceptions=True), deadline)
            for name, reply in zip(page, replies, strict=True):
                if isinstance(reply, ResponseError):
                    continue
                if isinstance(reply, BaseException):
                    raise reply
                if any(n > 0 for owner, n in _counts(reply).items() if owner in living):
                    found.append(name)
        return found

    async def claim_of(self, namespace: str, id: str, deadline: float) -> Claim | None:
        """The registered claim of an id, whether or not its owner has a lease."""
        members = self._keys.members(namespace)
        value = await self._topology.call(deadline, members, "HGET", members, id)
        return Claim.parse(value)

    async def claims(self, namespace: str, ids: Sequence[str], deadline: float) -> dict[str, Claim]:
        """The registered claims of some ids, at most a few pages of them."""
        key = self._keys.members(namespace)
        values = await self._topology.call(deadline, key, "HMGET", key, *ids)
        found = {id: Claim.parse(value) for id, value in zip(ids, values, strict=True)}
        return {id: claim for id, claim in found.items() if claim is not None}

    async def _profiles(
        self, namespace: str, claims: Mapping[str, Claim], deadline: float
    ) -> tuple[dict[str, Profile], dict[str, Claim]]:
        """The profiles of some claims, NONE for those without; and which claims stand after that.

        A claim that still stands had this profile when both were read.
        """
        if not claims:
            return {}, {}
        key, ids = self._keys.profiles(namespace), list(claims)
        if self._topology.spans:  # where a call may be redirected, and come behind the next one
            entries = await self._entries(key, ids, deadline)
            standing = await self.claims(namespace, ids, deadline)
        else:
            entries, standing = await asyncio.gather(
                self._entries(key, ids, deadline), self.claims(namespace, ids, deadline)
            )
        found = zip(claims.items(), entries, strict=True)
        return {id: read_entry(entry, claim) for (id, claim), entry in found}, standing

    async def _entries(
        self, key: str, ids: Collection[str], deadline: float
    ) -> Sequence[bytes | None]:
        try:
            entries: Sequence[bytes | None] = await self._topology.call(
                deadline, key, "HMGET", key, *ids
            )
        except BackplaneUnavailableError as error:
            if not str(error.__cause__).startswith("WRONGTYPE"):
                raise  # else it is deleted by the next script that needs it
            return [None] * len(ids)
        return entries

    async def claim_pages(self, namespace: str, timeout: float) -> AsyncIterator[dict[str, Claim]]:
        """Every claim of a namespace, page by page; ``timeout`` is for each page.

        Entries without a readable id or claim are left out.
        """
        async for page in pages(self._topology, self._keys.members(namespace), timeout):
            claims = {text_of(id): Claim.parse(value) for id, value in page}
            yield {
                id: claim for id, claim in claims.items() if id is not None and claim is not None
            }


def _counts(flat: Iterable[bytes]) -> dict[str, int]:
    """Members per incarnation, without the checksums, whose fields end with "#"."""
    return {
        name: int(n)
        for name, n in pairs(flat).items()
        if not name.endswith("#") and _COUNT.fullmatch(n)
    }


async def pages(
    topology: Topology, key: str, timeout: float
) -> AsyncIterator[list[tuple[bytes, bytes]]]:
    """The fields and values of a hash, page by page, unchecked.

    Raises BackplaneUnavailableError when a cluster has moved it in between: a cursor of one process
    leaves out entries in another one.
    """
    loop = asyncio.get_running_loop()
    cursor: bytes | str = "0"
    began = topology.of(key), topology.of(key).generation
    while True:
        if topology.spans and began != (topology.of(key), topology.of(key).generation):
            raise BackplaneUnavailableError(f"{key} has moved while it was read: read it again")
        cursor, fields = await topology.call(
            loop.time() + timeout, key, "HSCAN", key, cursor, "COUNT", PAGE
        )
        yield list(zip(fields[::2], fields[1::2], strict=True))
        if cursor in (b"0", "0", 0):
            return
