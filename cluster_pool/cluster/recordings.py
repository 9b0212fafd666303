"""Recordings of sealed items, told from what was under way: by the claims of connections here.

A seal's counter below the time of a claim says that the item was sealed before that claim was made.
What was under way meanwhile is told by the claim that the script named.
"""

from collections.abc import Collection
from typing import Any

from cluster_pool.backplane.shard import Shard
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.core.claims import Claim
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.seals import GOOD_FOR_US, sealed_before
from cluster_pool.local.table import ConnectionTable


class Recordings:
    """Keeps old items from connections that claimed their id after the items were sealed."""

    def __init__(self, shard: Shard, table: ConnectionTable, ownership: Ownership) -> None:
        self._shard = shard
        self._table = table
        self._ownership = ownership

    @property
    def newest(self) -> int:
        """The Redis time in µs of the latest claim of this node: what is sealed later is new."""
        return self._ownership.newest

    def check(self, named: str, counter: int, item: list[Any], now: int) -> None:
        """Refuse a recording for the connection here that has the id, if one has.

        What was sealed after its claim is none. What was sealed before is none if the script has
        named this claim, or an older one that this node held, whose messages its successor gets.

        Args:
            named: the claim that the script named.
            counter: of the item's seal.

        Raises:
            BrokenEnvelopeError: it is a recording.
        """
        namespace, id = item[1], item[2]
        membership = self._ownership.find(namespace, id, named)
        if membership is None:
            return
        own = membership.claim
        if own is not None and counter >= own.time:
            return
        claimed = now if own is None else min(own.time, now)
        if counter < claimed - GOOD_FOR_US or not self._held(named, own, namespace, id):
            raise BrokenEnvelopeError("replay")

    def _held(self, named: str, own: Claim | None, namespace: str, id: str) -> bool:
        """Whether a claim is that of the connection here, or was that of one before it."""
        claim = Claim.parse(named)
        if own is None or claim is None:
            return claim is not None
        if (claim.time, claim.nonce) == (own.time, own.nonce):
            return True
        return self._ownership.former.had(namespace, id, claim)

    def later(self, namespace: str, counter: int) -> Collection[str] | None:
        """The members here who claimed after an item was sealed; None when all of them did.

        Nobody came later to a namespace without members.
        """
        now = self._shard.redis_time_at_most()
        members = self._table.namespace(namespace) or {}
        later = frozenset(
            id
            for id, one in members.items()
            if one.claim is not None and sealed_before(one.claim.time, counter, now)
        )
        return None if members and len(later) == len(members) else later
