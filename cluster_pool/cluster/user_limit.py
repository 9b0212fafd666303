"""Closes the oldest connections of users that have too many, where newcomers are not refused.

After each newcomer its node looks at all connections of the user, which have their homes, and
closes those beyond the limit, the oldest first. Two that look at the same time find the same ones.
It looks again until no more are left than may be: Redis, or the node of the oldest, may be away.
"""

import asyncio
import logging
import random
from typing import Final

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.core import envelope
from cluster_pool.core.claims import Claim
from cluster_pool.core.closing import TAKEN_OVER
from cluster_pool.core.ids import shown
from cluster_pool.exceptions import ClusterPoolError

log = logging.getLogger("cluster_pool.membership")

REASON: Final = "user limit"
PAUSE: Final = 0.2
LONGEST: Final = 5.0
"""Seconds until the next look, with jitter, if nobody comes; doubles up to the longest."""


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
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._newcomers: dict[str, asyncio.Event] = {}
        """Both by the namespace of the user."""

    @property
    def displaces(self) -> bool:
        """Whether a newcomer may displace the oldest connection of its user."""
        return self._most is not None

    async def stop(self) -> None:
        """Close no more."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def joined(self, namespace: str) -> None:
        """A connection of a user has its home; ``namespace`` is that of the user."""
        if self._most is None:
            return
        if namespace not in self._tasks:
            self._newcomers[namespace] = asyncio.Event()
            self._tasks[namespace] = asyncio.create_task(self._keep(namespace, self._most))
        self._newcomers[namespace].set()

    async def _keep(self, namespace: str, most: int) -> None:
        """Close the oldest connections of a user until no more than ``most`` are left."""
        newcomer, pause = self._newcomers[namespace], PAUSE
        try:
            while True:
                newcomer.clear()
                if await self._try_closing(namespace, most) and not newcomer.is_set():
                    return
                try:
                    async with asyncio.timeout(pause * random.uniform(0.5, 1)):
                        await newcomer.wait()
                    pause = PAUSE
                except TimeoutError:
                    pause = min(2 * pause, LONGEST)
        finally:
            del self._tasks[namespace], self._newcomers[namespace]

    async def _try_closing(self, namespace: str, most: int) -> bool:
        """Close those beyond the limit; True if there are none."""
        try:
            return await self._close_oldest(namespace, most)
        except ClusterPoolError as error:
            log.info("connections of %s beyond its limit stay: %s", shown(namespace), error)
            return False

    async def _close_oldest(self, namespace: str, most: int) -> bool:
        deadline = self._deadline(None)
        claims: dict[str, Claim] = {}
        async for page in self._directory.claim_pages(namespace, deadline - self._loop.time()):
            claims.update(page)
        if len(claims) <= most:
            return True
        living = await self._leases.held(deadline)
        times = {id: one.time for id, one in claims.items() if one.incarnation in living}
        by_age = sorted(times, key=times.__getitem__)
        for id in by_age[: max(0, len(by_age) - most)]:
            log.debug("closes the oldest connection of %s", shown(namespace))
            item = envelope.close_one(namespace, id, TAKEN_OVER, REASON, None)
            await self._outbound.send(namespace, id, item, deadline)
        return False
