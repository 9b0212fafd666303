"""Tells replayed recordings of sealed items from late ones, by the claims of connections here.

If the counter of a seal is below the time of a claim, the item was sealed before that claim was
made. An item that was under way meanwhile is recognized by the claim that the script routed it by.
"""

from collections.abc import Collection
from typing import Any

from cluster_pool.backplane.topology import Topology
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.core.claims import Claim
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.seals import GOOD_FOR_US, sealed_before
from cluster_pool.local.table import ConnectionTable


class Recordings:
    """Keeps old items from connections that claimed their id after the items were sealed."""

    def __init__(self, topology: Topology, table: ConnectionTable, ownership: Ownership) -> None:
        self._topology = topology
        self._table = table
        self._ownership = ownership

    @property
    def newest(self) -> int:
        """The Redis time in µs of the latest claim of this node: items sealed later are new."""
        return self._ownership.newest

    def check(self, named: str, counter: int, item: list[Any], now: int) -> None:
        """Raise if an item for a connection here is a recording.

        An item that was sealed after the connection's claim is none. One that was sealed before is
        none if the script routed it by this claim, or by an older one that this node held: messages
        for that go to its successor.

        Args:
            named: the claim by which the script routed it.
            counter: that of the item's seal.

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
        """Whether a claim is that of the connection here, or of one before it."""
        claim = Claim.parse(named)
        if own is None or claim is None:
            return claim is not None
        if (claim.time, claim.nonce) == (own.time, own.nonce):
            return True
        return self._ownership.former.had(namespace, id, claim)

    def later(self, namespace: str, counter: int) -> Collection[str] | None:
        """The members here that claimed after an item was sealed; None when all of them did.

        For a namespace without members it is empty.
        """
        now = self._topology.of(namespace).redis_time_at_most()
        members = self._table.namespace(namespace) or {}
        later = frozenset(
            id
            for id, one in members.items()
            if one.claim is not None and sealed_before(one.claim.time, counter, now)
        )
        return None if members and len(later) == len(members) else later
