"""Slots of a Redis Cluster: the slot of a key, and the owners that nodes report. Pure.

A cluster has 16,384 slots. A key's slot is the CRC16 of what stands between its first ``{`` and the
``}`` behind it, or of the whole key. Source: the Redis Cluster specification, "Keys distribution
model"; a test compares with CLUSTER KEYSLOT.
"""

from binascii import crc_hqx
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from cluster_pool.backplane.urls import Where
from cluster_pool.core.ids import NODE_TAG

SLOTS: Final = 16_384


def hash_tag(key: str) -> str:
    """The part of a key, a channel or a namespace that decides about its slot."""
    begin = key.find("{") + 1
    end = key.find("}", begin) if begin else 0
    return key[begin:end] if end > begin else key


def slot_of(key: str) -> int:
    """The slot of a key or a channel; of a namespace, that of all its keys."""
    return crc_hqx(hash_tag(key).encode(), 0) % SLOTS


HOME_SLOT: Final = slot_of(NODE_TAG)
"""The slot of leases, nodes and drains, which belong to no namespace."""


def tag_of_one(slots: Iterable[int]) -> str:
    """A hash tag whose slot is one of ``slots``, which must not be empty."""
    wanted = frozenset(slots)
    number = 0
    while slot_of(str(number)) not in wanted:
        number += 1
    return str(number)


@dataclass(frozen=True, slots=True)
class Group:
    """A primary with its replicas, and the slots that they have.

    Attributes:
        ids: the names of its nodes in the cluster, the primary's first.
        places: where each of them says that it is, in the same order.
        ranges: first and last slot of each range.
    """

    ids: tuple[str, ...]
    places: tuple[Where, ...]
    ranges: tuple[tuple[int, int], ...]

    @property
    def primary(self) -> Where:
        """The place of the primary, as it reports it."""
        return self.places[0]

    def __contains__(self, slot: int) -> bool:
        return any(first <= slot <= last for first, last in self.ranges)

    @property
    def slots(self) -> Iterator[int]:
        """Every slot."""
        for first, last in self.ranges:
            yield from range(first, last + 1)


def read_groups(reply: Sequence[Any], asked: Where) -> list[Group]:
    """The groups that have slots, as CLUSTER SLOTS lists them.

    Args:
        asked: where this was asked. A node that does not know how it is reached says nothing of
            its host, which is then that one.

    Raises:
        ValueError: it is no such reply.
    """
    ranges: dict[str, list[tuple[int, int]]] = {}
    places: dict[str, dict[str, Where]] = {}
    try:
        for first, last, *nodes in reply:
            named = {node[2].decode(): _place(node, asked) for node in nodes}
            if not named or not 0 <= first <= last < SLOTS:
                raise ValueError("no node, or no slot")
            primary = next(iter(named))
            ranges.setdefault(primary, []).append((int(first), int(last)))
            places.setdefault(primary, {}).update(named)
    except (TypeError, IndexError, AttributeError, ValueError) as error:
        raise ValueError(f"CLUSTER SLOTS is not understood: {error}") from error
    return [
        Group(tuple(places[primary]), tuple(places[primary].values()), tuple(found))
        for primary, found in ranges.items()
    ]


def _place(node: Sequence[Any], asked: Where) -> Where:
    host = (node[0] or b"").decode()
    return (asked[0] if host in ("", "?") else host), int(node[1])
