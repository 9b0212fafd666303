"""What crossed nodes under a seal: opened, and kept from those who came after it was sealed.

A seal says who said what, to which channel, and about when; not to whom a script routed it, which
knows no secret. So a recording is told by its counter: below the time of a claim, it was sealed
before that claim was made. What was under way meanwhile is told by the claim that the script named.
"""

from collections.abc import Collection
from typing import Any, Final

from cluster_pool.backplane.inbox import Heard
from cluster_pool.backplane.shard import Shard
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.core.claims import Claim
from cluster_pool.core.envelope import TAKEN, BrokenEnvelopeError
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.seals import BOUND, GOOD_FOR_US, ROUTED, Seals, own_scope, sealed_before
from cluster_pool.core.statistics import Counters
from cluster_pool.local.table import ConnectionTable

CROSSED_US: Final = 100_000
"""How old a broadcast may be that came before everyone here and is no recording: they crossed."""


class Unsealing:
    """Opens items for one node or publisher.

    Whatever is refused is counted in ``dropped_forged``. Takeovers are told by a script and have no
    seal: they are verified where they matter.
    """

    def __init__(
        self, seals: Seals, shard: Shard, identity: Identity, keys: Keys, counters: Counters
    ) -> None:
        self._seals = seals
        self._shard = shard
        self._start = identity.start
        self._ours = f"{identity.start}."
        self._own = ""
        self._scopes = {ROUTED: keys.node_prefix}
        self._counters = counters
        self._table: ConnectionTable | None = None
        self._ownership: Ownership | None = None

    def serve(self, table: ConnectionTable, ownership: Ownership) -> None:
        """There are connections here, for which some of it may be."""
        self._table, self._ownership = table, ownership

    def targeted(self, heard: Heard, claim: str, sealed: list[Any]) -> list[Any] | None:
        """An item of this node's own channel; None for what nobody may have."""
        if heard.channel != self._own:
            self._own = heard.channel
            self._scopes[BOUND] = own_scope(self._own, self._start)
        now = self._shard.redis_time()
        try:
            counter, item = self._seals.open(self._scopes, heard.sender, sealed, now)
            if sealed[0] == ROUTED:
                self._check_claim(claim, counter, item, now)
        except BrokenEnvelopeError as error:
            self._refuse(heard, error)
            return None
        return item

    def _check_claim(self, named: str, counter: int, item: list[Any], now: int) -> None:
        """Refuse a recording for the connection here that has the id, if one has.

        What was sealed after its claim is none. What was sealed before is none if the script has
        named this claim, or an older one that this node held, whose messages its successor gets.
        """
        if not named.startswith(self._ours):
            raise BrokenEnvelopeError("replay")
        if self._ownership is None:
            return
        connection = self._ownership.find(item[1], item[2], named)
        if connection is None:
            return
        own: Claim | None = connection.claim
        if own is not None and counter >= own.time:
            return
        claimed = now if own is None else min(own.time, now)
        if counter < claimed - GOOD_FOR_US or not self._held(named, own, item):
            raise BrokenEnvelopeError("replay")

    def _held(self, named: str, own: Claim | None, item: list[Any]) -> bool:
        """Whether a claim is that of the connection here, or was that of one before it."""
        assert self._ownership is not None
        claim = Claim.parse(named)
        if own is None or claim is None:
            return claim is not None
        if (claim.time, claim.nonce) == (own.time, own.nonce):
            return True
        return self._ownership.former.had(item[1], item[2], claim)

    def broadcast(
        self, heard: Heard, namespace: str, sealed: list[Any]
    ) -> tuple[list[Any], Collection[str]] | None:
        """An item of a namespace's channel, and the ids here that came later; None for no one."""
        if sealed[0] == TAKEN:
            return sealed, ()
        now = self._shard.redis_time()
        try:
            counter, item = self._seals.open({BOUND: heard.channel}, heard.sender, sealed, now)
        except BrokenEnvelopeError as error:
            self._refuse(heard, error)
            return None
        if self._ownership is None or self._ownership.newest <= counter:
            return item, ()
        later = self._later(namespace, counter)
        if later is None and counter < now - CROSSED_US:
            self._refuse(heard, BrokenEnvelopeError("replay"))
        return None if later is None else (item, later)

    def _later(self, namespace: str, counter: int) -> Collection[str] | None:
        """The members here who claimed after an item was sealed; None when all of them did.

        Where nobody is, nobody came later.
        """
        assert self._table is not None
        now = self._shard.redis_time_at_most()
        members = self._table.namespace(namespace) or {}
        later = frozenset(
            id
            for id, one in members.items()
            if one.claim is not None and sealed_before(one.claim.time, counter, now)
        )
        return None if members and len(later) == len(members) else later

    def _refuse(self, heard: Heard, error: BrokenEnvelopeError) -> None:
        self._counters.dropped_forged += 1
        self._shard.receiver.broken(error, heard.channel)
