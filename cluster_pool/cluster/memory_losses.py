"""Tells whether Redis has lost lately who was a member: then a newcomer may have been one."""

import asyncio
from typing import Final

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.core.history import History, Position

MINUTE: Final = 60.0
"""Seconds for which it is kept who was there, at least."""


class MemoryLosses:
    """The losses of Redis as far as one node knows them, or can find out.

    A node learns of a restart by its link, and of a FLUSHALL by its next heartbeat. Until then a
    history that has begun lately is either the first of its namespace, or the first since the loss:
    then the lease of the node is gone as well.
    """

    def __init__(self, backplane: Backplane, lease: LeaseState) -> None:
        setup = backplane.setup
        self._topology, self._leases, self._lease = backplane.topology, backplane.leases, lease
        self._rules = setup.histories
        self._unnoticed = 2 * setup.timing.heartbeat + setup.timing.timeout
        self._deadline = backplane.deadline

    async def concern(self, namespace: str, last: Position) -> bool:
        """Whether an id that is not known may have been a member lately.

        Args:
            last: the position of the last message, as the claim has found it.

        Raises BackplaneUnavailableError when Redis did not answer in time.
        """
        if self._is_known(namespace):
            return True
        age = self._topology.of(namespace).redis_time_at_most() - int(last.epoch or 0)
        if age > 1_000_000 * self._unnoticed:
            return False
        return not await self._leases.has(self._lease.incarnation, self._deadline(None))

    def _is_known(self, namespace: str) -> bool:
        seconds = max(MINUTE, (self._rules.of(namespace) or History()).seconds)
        succession = self._topology.of(namespace).succession
        return succession.lost_within(seconds, asyncio.get_running_loop().time())
