"""Claims in Redis: making, asserting and releasing them, and the list of namespaces beside them.

A function whose order matters has the links as a parameter, and queues its command before it
returns. The scripts and the callers decide; nothing here does.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import IntEnum
from typing import Any, Final, NamedTuple, TypeVar

from redis.exceptions import ResponseError

from cluster_pool.backplane import history_calls, script_calls
from cluster_pool.backplane.calls import Reply, in_time, texts, unheeded
from cluster_pool.backplane.script_calls import AssertedClaims
from cluster_pool.backplane.script_words import (
    EMPTIED,
    KEPT,
    LOST,
    MISSED,
    NOT_REGISTERED,
    REFUSED,
    REJECT,
    RELEASED,
    SAME_USER,
    TAKEOVER,
)
from cluster_pool.backplane.topology import Links, Topology
from cluster_pool.core.claims import Claim
from cluster_pool.core.history import HistoryRules, Position, Resumption
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.exceptions import BackplaneUnavailableError

log = logging.getLogger("cluster_pool.registry")

CONFLICTS: Final = {True: TAKEOVER, False: REJECT, None: SAME_USER}

T = TypeVar("T")

BATCH: Final = 100
"""Claims per call. It occupies Redis for a millisecond, in which every other client waits."""
PAGE: Final = 500
"""Members per page; also namespaces per call, or per step, that does little for each."""

_RELEASED: Final = {ord(NOT_REGISTERED): None, ord(RELEASED): False, ord(EMPTIED): True}


class Standing(IntEnum):
    """Whether an asserted claim stands; truthy if it does."""

    LOST = 0
    KEPT = 1
    MISSED = 2
    """It stands, and messages to its id were parked in a history, since it was taken for gone."""


_ASSERTED: Final = {
    ord(LOST): Standing.LOST,
    ord(KEPT): Standing.KEPT,
    ord(MISSED): Standing.MISSED,
    ord(REFUSED): None,
}


class ClaimReply(NamedTuple):
    """The outcome of a claim.

    Attributes:
        status: CLAIMED, TAKEN (another claim stands), FULL (there is no room in the namespace),
            or LATE (it came after its deadline and changed nothing).
        claim: the one that stands now; None for FULL and LATE.
        resumption: what was won in a namespace with a history; else None.
    """

    status: str
    claim: Claim | None
    resumption: Resumption | None = None


class Claims:
    """The claims of a cluster as one node writes them."""

    def __init__(
        self, topology: Topology, keys: Keys, identity: Identity, histories: HistoryRules
    ) -> None:
        self._topology = topology
        self._keys = keys
        self._identity = identity
        self._histories = histories

    def claim(
        self,
        links: Links,
        namespace: str,
        incarnation: str,
        claims: Sequence[tuple[str, str, int, int, str | None]],
        *,
        takeover: bool | None,
        dead: str = "",
        room: int,
        told: Sequence[tuple[int, str]] = (),
    ) -> Reply[list[ClaimReply]]:
        """Claim ids; gives the outcome of each. The wait ends only with the generation.

        Args:
            claims: id, nonce, the Redis time in µs of the first attempt (0 if this is the first),
                the time after which it must not be executed, and the user.
            takeover: whether an id may be taken over; None: from a connection of the same user.
            room: how many members the namespace may have.
            told: the places of claims that have a profile, from 1 on, and these.
        """
        shard = self._topology.of(namespace)
        call = script_calls.claim(
            self._keys,
            namespace,
            sender=shard.sender,
            incarnation=incarnation,
            start=self._identity.start,
            node=self._identity.node_id,
            conflict=CONFLICTS[takeover],
            dead=dead,
            most=room,
            history=self._histories.asked(namespace),
            counted_by=shard.succession.digits,
            told=told,
            claims=[(*one[:4], self._histories.reader(namespace, one[4])) for one in claims],
        )

        def read(reply: list[bytes]) -> list[ClaimReply]:
            return [
                ClaimReply(status.decode(), Claim.parse(claim), Resumption.read(resumption))
                for status, claim, resumption in zip(
                    reply[::3], reply[1::3], reply[2::3], strict=True
                )
            ]

        return Reply(links.script(call), read)

    def release(
        self,
        links: Links,
        namespace: str,
        claims: Sequence[tuple[str, Claim, str]],
        deadline: float,
    ) -> Reply[list[bool | None]]:
        """Release claims; gives for each whether its release emptied the namespace.

        With each goes how far the id has received the history, an :meth:`entry`, or "".

        None for a claim that was not registered: it was released before, taken over, or lost.

        A retry gets the same answer as the lost reply: Redis keeps it until a reply has arrived.
        """
        call = script_calls.release(
            self._keys,
            namespace,
            node=self._identity.node_id,
            claims=[(id, str(claim), entry) for id, claim, entry in claims],
        )
        emptied = self._keys.emptied(namespace)

        def read(codes: bytes) -> list[bool | None]:
            last_ones = [_RELEASED[code] for code in codes]
            for (_, claim, _), is_last in zip(claims, last_ones, strict=True):
                if is_last:
                    links.commands(emptied).call("HDEL", emptied, str(claim)).add_done_callback(
                        unheeded
                    )
            return last_ones

        return Reply(links.script(call), read, deadline)

    def assert_claims(
        self,
        links: Links,
        incarnation: str,
        groups: Sequence[tuple[str, Sequence[tuple[str, Claim]]]],
        not_after: int,
        deadline: float,
        told: Sequence[tuple[int, str]] = (),
    ) -> Reply[list[Standing | None]]:
        """Register claims under a new incarnation; gives for each whether this node still owns it.

        None when Redis refused a command for the claim's namespace, which is logged: that claim is
        not registered, the others are.

        Args:
            groups: namespaces with ids and claims, as :func:`packed` makes them.
            told: the places of claims that have a profile, among all of them, from 1 on, and these.
        """
        asserted = [
            AssertedClaims(
                name,
                self._histories.asked(name),
                [(id, claim.time, claim.nonce) for id, claim in claims],
            )
            for name, claims in groups
        ]
        shard = self._topology.of(groups[0][0])
        call = script_calls.assert_claims(
            self._keys,
            not_after=not_after,
            sender=shard.sender,
            incarnation=incarnation,
            start=self._identity.start,
            node=self._identity.node_id,
            counted_by=shard.succession.digits,
            told=told,
            groups=asserted,
        )

        def read(reply: list[Any]) -> list[Standing | None]:
            _, codes, refused = in_time(reply)
            if refused:
                log.warning("claims were not registered: %s", refused.decode())
            return [_ASSERTED[code] for code in codes]

        return Reply(links.script(call), read, deadline)

    async def inform(
        self,
        namespace: str,
        id: str,
        claim: Claim,
        profile: str,
        not_after: int,
        deadline: float,
    ) -> bool:
        """Replace the profile of a member; False if its claim is not registered."""
        call = script_calls.inform(
            self._keys,
            namespace,
            not_after=not_after,
            node=self._identity.node_id,
            updates=[(id, claim.time, claim.nonce, profile)],
        )
        _, codes = in_time(await self._topology.script(deadline, call))
        return _ASSERTED[codes[0]] is Standing.KEPT

    def entry(self, namespace: str, place: Position, user: str | None) -> str:
        """The position of a member, as it is stored."""
        return f"{place.stored} {self._histories.reader(namespace, user)}"

    async def store_positions(
        self,
        namespace: str,
        positions: Sequence[tuple[str, Claim, str]],
        deadline: float,
    ) -> None:
        """Store how far members have received the history: id, claim, and :meth:`entry`."""
        call = history_calls.store_positions(
            self._keys,
            namespace,
            positions=[
                (id, f"{claim.time}:{claim.nonce}", entry) for id, claim, entry in positions
            ],
        )
        await self._topology.script(deadline, call)

    def tallies(
        self, links: Links, namespaces: Sequence[str], incarnation: str, deadline: float
    ) -> Reply[list[tuple[int, int]]]:
        """The registered count and checksum of one owner in each of at most ``PAGE`` namespaces."""
        parts = list(self._topology.together(namespaces))
        calls = [
            links.script(script_calls.tallies(self._keys, incarnation=incarnation, namespaces=part))
            for part in parts
        ]

        def read(replies: list[list[int]]) -> list[tuple[int, int]]:
            tallies = {
                name: tally
                for part, reply in zip(parts, replies, strict=True)
                for name, *tally in zip(part, reply[::2], reply[1::2], strict=True)
            }
            return [(tallies[name][0], tallies[name][1]) for name in namespaces]

        return Reply(asyncio.gather(*calls), read, deadline)

    async def is_empty(self, namespace: str, deadline: float) -> bool:
        """Whether a namespace has no members, not even those of dead nodes."""
        members = self._keys.members(namespace)
        return not await self._topology.call(deadline, members, "HLEN", members)

    def packed(self, groups: Iterable[tuple[str, list[T]]]) -> Iterator[list[tuple[str, list[T]]]]:
        """Split the items of many namespaces into batches, one for each call; large groups are
        split. On a Redis Cluster the namespaces of a batch have one slot."""
        held = dict(groups)
        for names in self._topology.together(held):
            yield from packed((name, held[name]) for name in names)

    # -- the namespaces of an incarnation --------------------------------------------------

    def add_namespaces(
        self, links: Links, incarnation: str, namespaces: Sequence[str], deadline: float
    ) -> Reply[bool]:
        """Add namespaces to the list of an incarnation; False when it has no lease."""
        pages = [namespaces[at : at + PAGE] for at in range(0, len(namespaces), PAGE)]
        calls = [
            links.script(
                script_calls.add_namespaces(self._keys, incarnation=incarnation, names=page)
            )
            for page in pages
        ]

        return Reply(asyncio.gather(*calls), all, deadline)

    def remove_namespaces(self, links: Links, incarnation: str, namespaces: Sequence[str]) -> None:
        """Remove namespaces from the list of an incarnation; the reply is not awaited."""
        key = self._keys.namespaces(incarnation)
        links.commands(key).call("SREM", key, *namespaces).add_done_callback(unheeded)

    async def namespaces_of(self, incarnation: str, deadline: Callable[[], float]) -> list[str]:
        """The namespaces in which an incarnation may hold members.

        Args:
            deadline: gives that of the next page; of 100,000 namespaces there are 200 pages.
        """
        cursor, found = b"0", set[str]()
        while True:
            try:
                cursor, names = await self._topology.home.call(
                    deadline(), "SSCAN", self._keys.namespaces(incarnation), cursor, "COUNT", PAGE
                )
            except BackplaneUnavailableError as error:
                if isinstance(error.__cause__, ResponseError):
                    return []  # of a wrong type: useless, and deleted when it has been reaped
                raise
            found.update(texts(names))
            if cursor in (b"0", "0", 0):
                return list(found)


def batches(items: list[T]) -> Iterator[list[T]]:
    """Split into lists of ``BATCH``, one for each call."""
    for at in range(0, len(items), BATCH):
        yield items[at : at + BATCH]


def packed(groups: Iterable[tuple[str, list[T]]]) -> Iterator[list[tuple[str, list[T]]]]:
    """Split the items of many namespaces into batches, one for each call, and large groups, too."""
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
