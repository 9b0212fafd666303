"""Closes the oldest connections of users that have too many, where newcomers are not refused.

Each newcomer that has its home looks at all connections of its user, and closes those beyond the
limit, the oldest first. Two that look at the same time find the same ones.
"""

import asyncio
import logging
from typing import Final

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.core import envelope
from cluster_pool.core.claims import Claim
from cluster_pool.core.closing import TAKEN_OVER
from cluster_pool.core.ids import shown
from cluster_pool.exceptions import ClusterPoolError

log = logging.getLogger("cluster_pool.membership")

REASON: Final = "user limit"


class UserLimit:
    """Keeps the number of connections of a user at a limit, from the moment a newcomer has joined.

    Args:
        most: connections that a user may have; None: any number, and nothing is done.
    """

    def __init__(self, backplane: Backplane, most: int | None) -> None:
        self._deadline = backplane.deadline
        self._loop = backplane.loop
        self._directory = backplane.directory
        self._leases = backplane.leases
        self._outbound = backplane.outbound
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Close no more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def joined(self, namespace: str) -> None:
        """A connection of a user has its home; ``namespace`` is that of the user."""
        if self._most is not None:
            task = asyncio.create_task(self._close_oldest(namespace, self._most))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _close_oldest(self, namespace: str, most: int) -> None:
        deadline = self._deadline(None)
        try:
            claims: dict[str, Claim] = {}
            async for page in self._directory.claim_pages(namespace, deadline - self._loop.time()):
                claims.update(page)
            if len(claims) <= most:
                return
            living = await self._leases.held(deadline)
            times = {id: one.time for id, one in claims.items() if one.incarnation in living}
            by_age = sorted(times, key=times.__getitem__)
            for id in by_age[: max(0, len(by_age) - most)]:
                log.debug("closes the oldest connection of %s", shown(namespace))
                item = envelope.close_one(namespace, id, TAKEN_OVER, REASON, None)
                await self._outbound.send(namespace, id, item, deadline)
        except ClusterPoolError as error:
            log.info("connections of %s beyond its limit stay: %s", shown(namespace), error)
