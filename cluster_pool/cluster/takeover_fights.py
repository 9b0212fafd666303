"""Takeovers at this node: counts them, calls the hook, and delays claims that clients fight over.

In a fight an id is taken over again and again, since each of two clients comes back as soon as the
other has it.
"""

import asyncio
import logging
from collections.abc import Callable

from cluster_pool.cluster.pending_claim import PendingClaim
from cluster_pool.core.ids import shown
from cluster_pool.core.quiet import Quiet
from cluster_pool.core.statistics import Counters
from cluster_pool.core.takeovers import Takeovers
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Membership

log = logging.getLogger("cluster_pool.membership")


class TakeoverFights:
    """Counts takeovers by id.

    Args:
        on_takeover: called with each connection whose home another one has taken over.
    """

    def __init__(self, counters: Counters, on_takeover: Callable[[Connection], None]) -> None:
        self._counters = counters
        self._on_takeover = on_takeover
        self._takeovers = Takeovers()
        self._quiet = Quiet()

    def note(self, membership: Membership[Connection]) -> None:
        """Another connection has taken over the id of a membership."""
        self._counters.taken_over += 1
        now = asyncio.get_running_loop().time()
        key = membership.namespace, membership.id
        if self._takeovers.note(*key, now):
            self._counters.takeover_fights += 1
            if times := self._quiet.due(key, now):
                log.info(
                    "id %s in %s is taken over again and again (%d times more): two clients use it",
                    shown(membership.id),
                    shown(membership.namespace),
                    times,
                )
        if membership.home:
            self._on_takeover(membership.connection)

    async def slow_down(self, pending: PendingClaim) -> None:
        """Delay the claim of an id that clients fight for, so that a fight costs little."""
        membership = pending.membership
        now = asyncio.get_running_loop().time()
        delay = self._takeovers.delay(membership.namespace, membership.id, now, pending.deadline)
        if delay:
            self._counters.delayed_claims += 1
            await asyncio.wait((pending.won,), timeout=delay)
