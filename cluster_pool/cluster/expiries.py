"""Closes connections whose identities have expired, at a pace.

Tokens that were made together expire together, and their clients come back for new ones. So the
closes are spread: at this node's part of the budget of a drain, or faster where the last one would
be closed more than 20 seconds after its time.

Connections lie in buckets of one second, by the clock of the machine. So each costs one entry of a
dict, and the task, which exists only while there are any, looks at one bucket a second.
"""

import asyncio
import heapq
import time
from contextvars import Context
from math import ceil
from typing import Final

from cluster_pool.core.closing import UNAUTHORIZED
from cluster_pool.core.pacing import STEP, Pacer
from cluster_pool.core.statistics import Counters
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import begin_close

PERIOD: Final = 1.0
"""Seconds between two looks while none has expired."""
SPREAD: Final = 20.0
"""Seconds over which closes are spread at most."""
FEW: Final = 64
"""Names of buckets that are gone, which may stay in the heap."""
LONG: Final = 0.2
"""Seconds between two looks that are caught up at once, at most."""
REASON: Final = "expired"


class Expiries:
    """The connections of a node that expire.

    Args:
        rate: closes per second where time allows.
    """

    def __init__(self, rate: float, counters: Counters) -> None:
        self._rate = rate
        self._counters = counters
        self._second: dict[Connection, int] = {}
        """The bucket of each connection; 0 once it has expired."""
        self._buckets: dict[int, dict[Connection, None]] = {}
        self._order: list[int] = []
        """The names of the buckets, as a heap; also of some that are empty and gone."""
        self._due: dict[Connection, float] = {}
        """When each that has expired was found, by the clock of the loop; the oldest first."""
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._second)

    def watch(self, connection: Connection) -> None:
        """Close a connection when it expires; or later or earlier, if it was renewed."""
        self.forget(connection)
        if connection.expires is None or connection.closed:
            return
        second = max(1, ceil(connection.expires))
        if second not in self._buckets:
            self._buckets[second] = {}
            heapq.heappush(self._order, second)
        self._buckets[second][connection] = None
        self._second[connection] = second
        if self._task is None:
            # In a context of its own: the caller's holds that connection's endpoint.
            self._task = asyncio.create_task(
                self._run(), name="cluster_pool expiries", context=Context()
            )

    def forget(self, connection: Connection) -> None:
        """It is closed, or does not expire any more."""
        second = self._second.pop(connection, None)
        if second is not None:
            self._due.pop(connection, None)
            bucket = self._buckets.get(second)
            if bucket is not None:
                del bucket[connection]
                if not bucket:
                    self._drop(second)

    def _drop(self, second: int) -> None:
        """Drop an empty bucket; else each second of tokens of a year would keep one for a year."""
        del self._buckets[second]
        if len(self._order) > 2 * len(self._buckets) + FEW:
            self._order = list(self._buckets)
            heapq.heapify(self._order)

    async def stop(self) -> None:
        """End the task; nothing is closed any more."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait((task,))

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        now = clock()
        pacer = Pacer(now)
        while self._second:
            before, now = now, clock()
            self._collect(time.time(), now)
            self._close(max(pacer.due(now, self._rate), self._late(now, now - before)))
            await asyncio.sleep(STEP if self._due else PERIOD)
        self._task = None

    def _collect(self, moment: float, now: float) -> None:
        """Find the connections that have expired at a moment by the clock of the machine."""
        while self._order and self._order[0] <= moment:
            for connection in self._buckets.pop(heapq.heappop(self._order), ()):
                self._second[connection] = 0
                self._due[connection] = now

    def _late(self, now: float, elapsed: float) -> int:
        """How many must be closed now, so that the oldest is in time.

        The share of all that the time since the last look has in the time that is left: a loop with
        long turns looks seldom, and closes more at each look.
        """
        if not self._due:
            return 0
        left = next(iter(self._due.values())) + SPREAD - now
        return len(self._due) if left <= STEP else int(len(self._due) * min(elapsed, LONG) / left)

    def _close(self, count: float) -> None:
        while count >= 1 and self._due:
            count -= 1
            connection = next(iter(self._due))
            self.forget(connection)
            self._counters.expired += 1
            begin_close(connection, UNAUTHORIZED, REASON)
