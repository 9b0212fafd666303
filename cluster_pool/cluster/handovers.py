"""The handover of an id from one node to another, in a namespace with a history.

A client that comes back may be faster than its former node: that has not released the id yet, and
so has not stored how far the client has received the history. When such a node hears that the id
was taken over, it tells the new owner, as soon as its client has answered the Close. The new owner
waits for that, for a moment. Without it, it begins at what was stored: then messages come twice.
"""

import asyncio
from collections import OrderedDict
from functools import partial
from typing import Any, Final

from cluster_pool.backplane.calls import deadline_in, unheeded
from cluster_pool.backplane.outbound import Outbound
from cluster_pool.cluster.member_accounts import mark_of
from cluster_pool.cluster.positions import Accounts, Key
from cluster_pool.core import envelope
from cluster_pool.core.claims import Claim
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.history import Position
from cluster_pool.exceptions import ClusterPoolError
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership

PATIENCE: Final = 1.0
"""Seconds that a new owner waits."""
MOST_EARLY: Final = 1_000
"""Positions that were told before anybody waits for them."""


class Handovers:
    """The handovers of one node, to it and from it."""

    def __init__(self, start: str, accounts: Accounts, outbound: Outbound) -> None:
        self._start = start
        self._accounts = accounts
        self._outbound = outbound
        self._early: OrderedDict[Key, Position | None] = OrderedDict()
        self._awaited: dict[Key, asyncio.Future[Position | None]] = {}

    # -- from here -------------------------------------------------------------------------

    def taken(self, namespace: str, id: str, former: Claim) -> None:
        """A claim was replaced: if it is one of ours, tell the new owner the position."""
        if former.start == self._start:
            self._accounts.when_over(namespace, id, former, partial(self._tell, namespace, id))

    def _tell(self, namespace: str, id: str, former: str, position: str) -> None:
        item = envelope.place(namespace, id, former, position)
        try:
            told = self._outbound.send(namespace, id, item, deadline_in(PATIENCE))
        except ClusterPoolError:
            return
        told.add_done_callback(unheeded)

    # -- to here ---------------------------------------------------------------------------

    def told(self, item: list[Any]) -> None:
        """A former owner tells the position of an id."""
        _, namespace, id, former, position = item
        place = Position.parse(position)
        if place is None and position != "":
            raise BrokenEnvelopeError("position")
        key = (namespace, id, former)
        waiting = self._awaited.get(key)
        if waiting is None:
            self._early[key] = place
            if len(self._early) > MOST_EARLY:
                self._early.popitem(last=False)
        elif not waiting.done():
            waiting.set_result(place)

    async def position(
        self, member: Membership[Connection], replaced: str, stored: Position
    ) -> Position:
        """The position at the end of the claim that a member has replaced, "" for none; ``stored``
        if its owner does not tell it."""
        former = Claim.parse(replaced)
        if former is None:
            return stored
        key = (member.namespace, member.id, mark_of(former))
        if key in self._early:
            return self._early.pop(key) or stored
        waiting = self._awaited[key] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(PATIENCE):
                return await waiting or stored
        except TimeoutError:
            return stored
        finally:
            del self._awaited[key]
