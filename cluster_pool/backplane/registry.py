"""One typed function per operation on the registry: leases, claims, counts.

Functions that must keep their order take a generation and queue their command on its command
connection before they return; the rest goes over whichever generation is up. Nothing
here decides; the scripts and the callers do.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Collection, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeVar

from redis.exceptions import ResponseError

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.calls import answered, in_time, pairs, text_of, texts, unheeded
from cluster_pool.backplane.generation import Generation
from cluster_pool.backplane.script_calls import AssertedClaims
from cluster_pool.backplane.script_words import (
    ALL,
    COUNTED,
    EMPTIED,
    KEPT,
    LOST,
    NOT_REGISTERED,
    OK,
    REFUSED,
    REJECT,
    RELEASED,
    TAKEN,
    TAKEOVER,
)
from cluster_pool.backplane.shard import Shard
from cluster_pool.core.claims import Claim
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.registry")

T = TypeVar("T")

BATCH: Final = 100
"""Claims to one call, which keeps everybody else waiting for a millisecond."""
REAPED: Final = 125
"""Members to one step of the reaper, for the same reason."""
PAGE: Final = 500
"""Members to one page; also namespaces to one call, or one go, that does little for each."""

_COUNT: Final = re.compile(r"\d{1,9}", re.ASCII)
_RELEASED: Final = {ord(NOT_REGISTERED): None, ord(RELEASED): False, ord(EMPTIED): True}
_ASSERTED: Final = {ord(LOST): False, ord(KEPT): True, ord(REFUSED): None}


@dataclass(frozen=True, slots=True)
class LeaseReply:
    """What Redis said to a join or a heartbeat.

    Attributes:
        held: False when the lease belongs to another (join) or is gone (heartbeat).
        epoch: the state of Redis that this lease belongs to.
        ends: Redis time in ms at which the other's lease ends.
        holder: the other's incarnation.
        living: how many nodes hold a lease.
    """

    held: bool
    epoch: str = ""
    ends: float = 0.0
    living: int = 1
    holder: str = ""


class ClaimReply(NamedTuple):
    """What became of a claim.

    Attributes:
        status: CLAIMED, TAKEN (somebody else's stands), FULL (there is no room in the namespace),
            or LATE (it came after its deadline and changed nothing).
        claim: the one that stands now; None for FULL and LATE.
    """

    status: str
    claim: Claim | None


class Registry:
    """The registry as one node, or a publisher, sees it."""

    def __init__(self, shard: Shard, keys: Keys, identity: Identity) -> None:
        self._shard = shard
        self._keys = keys
        self._identity = identity

    # -- leases ----------------------------------------------------------------------------

    async def join(
        self,
        incarnation: str,
        ttl: float,
        info: str,
        headroom: str,
        epoch: str,
        deadline: float,
        *,
        instead_of: str = "",
    ) -> LeaseReply:
        """Take a lease for a new incarnation of this node.

        ``headroom``: connections per second that it can take, "" when it takes nobody. ``epoch``:
        what a Redis without an epoch gets; "" for its time. ``instead_of``: another start's
        incarnation with this node id, which is dead then.
        """
        call = script_calls.join(
            self._keys,
            node=self._identity.node_id,
            start=self._identity.start,
            incarnation=incarnation,
            ttl_ms=int(ttl * 1000),
            info=info,
            headroom=headroom,
            new_epoch=epoch,
            instead_of=instead_of,
        )
        reply = await self._shard.script(deadline, call)
        if reply[0] == TAKEN.encode():
            return LeaseReply(False, ends=float(reply[1]), holder=text_of(reply[2]) or "")
        return LeaseReply(True, reply[1].decode(), living=reply[2])

    async def heartbeat(
        self, incarnation: str, ttl: float, info: str, headroom: str, epoch: str, deadline: float
    ) -> LeaseReply:
        """Renew the lease of this node's incarnation, unless it is over; as :meth:`join`.

        What else was registered of it, the ``epoch`` included, is written again if it was lost.
        """
        call = script_calls.heartbeat(
            self._keys,
            node=self._identity.node_id,
            incarnation=incarnation,
            ttl_ms=int(ttl * 1000),
            info=info,
            headroom=headroom,
            lease_epoch=epoch,
        )
        reply = await self._shard.script(deadline, call)
        if reply[0] != OK.encode():
            return LeaseReply(False)
        return LeaseReply(True, reply[1].decode(), living=reply[2])

    async def bury(
        self, incarnation: str, deadline: float, why: Literal["own", "expired", "orphan"]
    ) -> bool:
        """End an incarnation for good; False when its lease goes on.

        Args:
            why: ``"own"``, its node gives it up; ``"expired"``, its lease must be over;
                ``"orphan"``, it has none, but something else is registered of it.
        """
        call = script_calls.bury(self._keys, incarnation=incarnation, why=why)
        return bool(await self._shard.script(deadline, call))

    async def expired(self, deadline: float) -> list[str]:
        """Incarnations whose lease seems to be over."""
        now = self._shard.clock.at(asyncio.get_running_loop().time()) // 1000
        found = await self._shard.call(deadline, "ZRANGEBYSCORE", self._keys.leases, "-inf", now)
        return texts(found)

    def now(self) -> float:
        """Redis time in seconds, as far as this process knows; never ahead of it."""
        return self._shard.clock.at(asyncio.get_running_loop().time()) / 1_000_000

    async def next_end(self, deadline: float) -> float:
        """Redis time in ms at which the next lease ends, 0 when there is none."""
        now = self._shard.clock.at(asyncio.get_running_loop().time()) // 1000
        found = await self._shard.call(
            deadline,
            *("ZRANGEBYSCORE", self._keys.leases, f"({now}", "+inf"),
            *("WITHSCORES", "LIMIT", 0, 1),
        )
        return float(found[1]) if found else 0.0

    async def dead(self, deadline: float) -> dict[str, str]:
        """Incarnations that wait for being reaped, with their node ids."""
        return pairs(await self._shard.call(deadline, "HGETALL", self._keys.dead))

    async def forget(self, incarnation: str, deadline: float) -> None:
        """An incarnation has been reaped: remove the last that is known of it."""
        keys = self._keys
        await self._shard.call(deadline, "DEL", keys.namespaces(incarnation))
        await self._shard.call(deadline, "HDEL", keys.incarnations, incarnation)
        await self._shard.call(deadline, "HDEL", keys.dead, incarnation)

    async def forget_channel(self, deadline: float) -> None:
        """This node's own channel is used no more: remove its counter."""
        numbers = self._keys.numbers(self._identity.own_channel)
        await self._shard.call(deadline, "DEL", numbers)

    async def listeners(self, deadline: float) -> int:
        """How many listen to the channel of this node's id, this node among them."""
        channel = self._identity.own_channel
        return int((await self._shard.call(deadline, "PUBSUB", "NUMSUB", channel))[1])

    async def living(self, deadline: float) -> dict[str, str]:
        """Incarnations that hold a lease, with their node ids."""
        now = self._shard.clock.at(asyncio.get_running_loop().time()) // 1000
        names = await self._shard.call(
            deadline, "ZRANGEBYSCORE", self._keys.leases, f"({now}", "+inf"
        )
        if not names:
            return {}
        nodes = await self._shard.call(deadline, "HMGET", self._keys.incarnations, *names)
        return pairs(part for pair in zip(names, nodes, strict=True) for part in pair)

    async def start_of(self, node_id: str, deadline: float) -> str | None:
        """The start of a node as it last joined, or None; it may be dead meanwhile."""
        incarnation = await self._shard.call(deadline, "HGET", self._keys.nodes, node_id)
        return (
            None if incarnation is None else incarnation.decode(errors="replace").partition(".")[0]
        )

    async def infos(self, deadline: float) -> dict[str, tuple[str, str, float]]:
        """Living incarnations with node id, info as JSON, and seconds left of the lease."""
        living = await self.living(deadline)
        if not living:
            return {}
        infos = await self._shard.call(deadline, "HMGET", self._keys.infos, *living)
        ends = await self._shard.call(deadline, "ZMSCORE", self._keys.leases, *living)
        now = self._shard.clock.at(asyncio.get_running_loop().time()) / 1000
        return {
            name: (node, text_of(info) or "", max(0.0, float(end or 0) - now) / 1000)
            for (name, node), info, end in zip(living.items(), infos, ends, strict=True)
        }

    # -- claims ----------------------------------------------------------------------------

    def add_namespaces(
        self, generation: Generation, incarnation: str, namespaces: Sequence[str], deadline: float
    ) -> Coroutine[Any, Any, bool]:
        """Note namespaces of an incarnation; False when it has no lease."""
        pages = [namespaces[at : at + PAGE] for at in range(0, len(namespaces), PAGE)]
        calls = [
            generation.script(
                script_calls.add_namespaces(self._keys, incarnation=incarnation, names=page)
            )
            for page in pages
        ]

        async def read() -> bool:
            return all([await answered(call, deadline) for call in calls])

        return read()

    def remove_namespaces(
        self, generation: Generation, incarnation: str, namespaces: Sequence[str]
    ) -> None:
        """Remove namespaces of an incarnation from the note; nobody waits for it."""
        key = self._keys.namespaces(incarnation)
        generation.commands(key).call("SREM", key, *namespaces).add_done_callback(unheeded)

    def claim(
        self,
        generation: Generation,
        namespace: str,
        incarnation: str,
        claims: Sequence[tuple[str, str, int, int]],
        *,
        takeover: bool,
        dead: str = "",
        room: int,
    ) -> Coroutine[Any, Any, list[ClaimReply]]:
        """Claim ids; gives what became of each. The reply is waited for while the generation lasts.

        Args:
            claims: id, nonce, the Redis time in µs of the first attempt, 0 if this is it, and the
                one after which it must not be carried out.
            room: how many members the namespace may have.
        """
        call = script_calls.claim(
            self._keys,
            namespace,
            sender=self._shard.sender,
            incarnation=incarnation,
            start=self._identity.start,
            node=self._identity.node_id,
            conflict=TAKEOVER if takeover else REJECT,
            dead=dead,
            most=room,
            claims=claims,
        )
        written = generation.script(call)

        async def read() -> list[ClaimReply]:
            reply: list[bytes] = await answered(written, None)
            return [
                ClaimReply(status.decode(), Claim.parse(claim))
                for status, claim in zip(reply[::2], reply[1::2], strict=True)
            ]

        return read()

    def assert_claims(
        self,
        generation: Generation,
        incarnation: str,
        groups: Sequence[tuple[str, Sequence[tuple[str, Claim]]]],
        not_after: int,
        deadline: float,
    ) -> Coroutine[Any, Any, list[bool | None]]:
        """Register claims under a new incarnation; for each whether this node still owns it.

        None when Redis refused what the claim's namespace needs, which is logged: that one is not
        registered, and the others are.

        Args:
            groups: namespaces with ids and claims, as :func:`packed` makes them.
        """
        asserted = [
            AssertedClaims(name, [(id, claim.time, claim.nonce) for id, claim in claims])
            for name, claims in groups
        ]
        call = script_calls.assert_claims(
            self._keys,
            not_after=not_after,
            sender=self._shard.sender,
            incarnation=incarnation,
            start=self._identity.start,
            node=self._identity.node_id,
            groups=asserted,
        )
        written = generation.script(call)

        async def read() -> list[bool | None]:
            reply = in_time(await answered(written, deadline))
            if reply[2]:
                log.warning("claims were not registered: %s", reply[2].decode())
            return [_ASSERTED[code] for code in reply[1]]

        return read()

    def tallies(
        self, generation: Generation, namespaces: Sequence[str], incarnation: str, deadline: float
    ) -> Coroutine[Any, Any, list[tuple[int, int]]]:
        """The registered count and checksum of one owner in each of at most ``PAGE`` namespaces."""
        call = script_calls.tallies(self._keys, incarnation=incarnation, namespaces=namespaces)
        written = generation.script(call)

        async def read() -> list[tuple[int, int]]:
            reply: list[int] = await answered(written, deadline)
            return list(zip(reply[::2], reply[1::2], strict=True))

        return read()

    def release(
        self,
        generation: Generation,
        namespace: str,
        claims: Sequence[tuple[str, Claim]],
        deadline: float,
    ) -> Coroutine[Any, Any, list[bool | None]]:
        """Give claims up; tells for each whether its release emptied the namespace.

        None for what was not registered: it was released before, or another has it, or it was lost.

        A retry gets the answer that was lost: Redis remembers it until this one has come.
        """
        call = script_calls.release(
            self._keys,
            namespace,
            node=self._identity.node_id,
            claims=[(id, str(claim)) for id, claim in claims],
        )
        written = generation.script(call)
        emptied = self._keys.emptied(namespace)

        async def read() -> list[bool | None]:
            codes: bytes = await answered(written, deadline)
            last_ones = [_RELEASED[code] for code in codes]
            for (_, claim), is_last in zip(claims, last_ones, strict=True):
                if is_last:
                    generation.commands(emptied).call(
                        "HDEL", emptied, str(claim)
                    ).add_done_callback(unheeded)
            return last_ones

        return read()

    # -- reading and reaping ---------------------------------------------------------------

    async def namespaces_of(self, incarnation: str, deadline: float) -> list[str]:
        """The namespaces in which an incarnation may hold members."""
        cursor, found = b"0", set[str]()
        while True:
            try:
                cursor, names = await self._shard.call(
                    deadline, "SSCAN", self._keys.namespaces(incarnation), cursor, "COUNT", PAGE
                )
            except BackplaneUnavailableError as error:
                if isinstance(error.__cause__, ResponseError):
                    return []  # of a wrong type: it says nothing, and is deleted in the end
                raise
            found.update(texts(names))
            if cursor in (b"0", "0", 0):
                return list(found)

    async def clear(
        self, namespace: str, incarnation: str, node_id: str, timeout: float, *, counted: bool
    ) -> tuple[int, bool]:
        """Remove an incarnation's members from a namespace; how many, and if that emptied it.

        In steps, for each of which ``timeout`` seconds are waited. A retry after a lost answer
        tells again if it emptied it: Redis remembers it until the answer has come.

        Args:
            counted: its count there can be believed; else every member is looked at.
        """
        cursor, total, empty = "0", 0, False
        while True:
            deadline = asyncio.get_running_loop().time() + timeout
            cursor, gone, emptied = await self._reap(
                namespace, incarnation, node_id, cursor, deadline, counted
            )
            total, empty = total + gone, empty or emptied
            if not cursor:
                break
        if empty:
            key = self._keys.emptied(namespace)
            commands = (await self._shard.connected(deadline)).commands(key)
            commands.call("HDEL", key, self._removal(incarnation)).add_done_callback(unheeded)
        return total, empty

    def _removal(self, incarnation: str) -> str:
        """What this process calls its removal of an incarnation's members."""
        return f"{incarnation}@{self._identity.start}"

    async def _reap(
        self,
        namespace: str,
        incarnation: str,
        node_id: str,
        cursor: str,
        deadline: float,
        counted: bool,
    ) -> tuple[str, int, bool]:
        """One step; gives the next cursor ("" at the end), how many went, and if it is empty."""
        call = script_calls.reap(
            self._keys,
            namespace,
            incarnation=incarnation,
            node=node_id,
            cursor=cursor,
            most=REAPED,
            extent=COUNTED if counted else ALL,
            removal=self._removal(incarnation),
        )
        reply = await self._shard.script(deadline, call)
        return reply[0].decode(), reply[1], bool(reply[2])

    async def counts(self, namespace: str, deadline: float) -> dict[str, int]:
        """Members of a namespace per incarnation, dead ones included."""
        reply = await self._shard.call(deadline, "HGETALL", self._keys.owners(namespace))
        return _counts(reply)

    async def populated(
        self, namespaces: Sequence[str], living: Collection[str], deadline: float
    ) -> list[str]:
        """Those in which a living incarnation has members, in the order given.

        Their counts are read in pipelines: a page of them costs a round trip. What Redis refuses
        for one namespace is no answer about another.
        """
        found: list[str] = []
        for at in range(0, len(namespaces), PAGE):
            page = namespaces[at : at + PAGE]
            generation = await self._shard.connected(deadline)
            owners = [self._keys.owners(name) for name in page]
            calls = [generation.commands(key).call("HGETALL", key) for key in owners]
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
        """The registered claim of an id, whether or not its lease stands."""
        value = await self._shard.call(deadline, "HGET", self._keys.members(namespace), id)
        return Claim.parse(value)

    async def claims(self, namespace: str, ids: Sequence[str], deadline: float) -> dict[str, Claim]:
        """The registered claims of some ids, at most a few pages of them."""
        key = self._keys.members(namespace)
        values = await self._shard.call(deadline, "HMGET", key, *ids)
        found = {id: Claim.parse(value) for id, value in zip(ids, values, strict=True)}
        return {id: claim for id, claim in found.items() if claim is not None}

    async def claims_of(self, namespace: str, timeout: float) -> AsyncIterator[tuple[str, Claim]]:
        """Every registered claim of a namespace, dead owners' included; as :meth:`claim_pages`."""
        async for page in self.claim_pages(namespace, timeout):
            for one in page.items():
                yield one

    async def claim_pages(self, namespace: str, timeout: float) -> AsyncIterator[dict[str, Claim]]:
        """The same, page by page; ``timeout`` is for each page.

        What is no claim, and what has no id that can be read, is left out.
        """
        async for page in self._pages(namespace, timeout):
            claims = {text_of(id): Claim.parse(value) for id, value in page}
            yield {
                id: claim for id, claim in claims.items() if id is not None and claim is not None
            }

    async def entries_of(
        self, namespace: str, timeout: float
    ) -> AsyncIterator[tuple[bytes, bytes]]:
        """What stands in the hash of a namespace's members, a page at a time, whatever it is."""
        async for page in self._pages(namespace, timeout):
            for one in page:
                yield one

    async def _pages(
        self, namespace: str, timeout: float
    ) -> AsyncIterator[list[tuple[bytes, bytes]]]:
        loop = asyncio.get_running_loop()
        cursor: bytes | str = "0"
        while True:
            cursor, fields = await self._shard.call(
                loop.time() + timeout,
                "HSCAN",
                self._keys.members(namespace),
                cursor,
                "COUNT",
                PAGE,
            )
            yield list(zip(fields[::2], fields[1::2], strict=True))
            if cursor in (b"0", "0", 0):
                return


def batches(items: list[T]) -> Iterator[list[T]]:
    """Pieces of as many as one call takes."""
    for at in range(0, len(items), BATCH):
        yield items[at : at + BATCH]


def packed(groups: Iterable[tuple[str, list[T]]]) -> Iterator[list[tuple[str, list[T]]]]:
    """What many namespaces hold, in pieces of as many as one call takes; large groups are split.

    Which namespaces go together is decided here alone: on a Redis Cluster, those of one slot.
    """
    batch: list[tuple[str, list[T]]] = []
    room = BATCH
    for namespace, items in groups:
        at = 0
        while at < len(items):
            part = items[at : at + room]
            batch.append((namespace, part))
            at += len(part)
            room -= len(part)
            if not room:
                yield batch
                batch, room = [], BATCH
    if batch:
        yield batch


def _counts(flat: Iterable[bytes]) -> dict[str, int]:
    """Members per incarnation; what ends with "#" stands beside them and counts nobody."""
    return {
        name: int(n)
        for name, n in pairs(flat).items()
        if not name.endswith("#") and _COUNT.fullmatch(n)
    }
