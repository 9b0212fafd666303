"""Finds out whether a release was the last one of its namespace where Redis cannot tell at once.

A Redis that was restarted without its data, or has taken over from another one, lacks claims until
their nodes have registered them again. A release that finds the namespace empty meanwhile was
perhaps not the last one; and one whose claim is lost perhaps was. So this looks again when all
nodes have had their time. Of several releases in one namespace the latest one here counts.
"""

import asyncio

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.claims import PAGE, Claims
from cluster_pool.backplane.topology import Topology
from cluster_pool.core.config import Timing
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.membership import Departure


class LastOnes:
    """Ends departures, and decides later about those that are in doubt. It has one task at most."""

    def __init__(self, topology: Topology, claims: Claims, timing: Timing) -> None:
        self._topology = topology
        self._claims = claims
        self._timing = timing
        self._doubtful: dict[str, Departure] = {}
        self._task: asyncio.Task[None] | None = None

    async def stop(self) -> None:
        """End: nothing that is in doubt now was the last one, as far as this node will know."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for departure in self._doubtful.values():
            departure.decide(emptied=False)
        self._doubtful.clear()

    def end(self, departure: Departure, emptied: bool | None) -> None:
        """A departure is over.

        Args:
            emptied: what Redis said of its release: whether it emptied the namespace; None if its
                claim was not registered.
        """
        namespace = departure.namespace
        if emptied is False or not self._seconds(namespace):
            departure.end(bool(emptied))
            return
        departure.doubt()
        departure.end(emptied=False)
        earlier = self._doubtful.pop(namespace, None)
        if earlier is not None:
            earlier.decide(emptied=False)
        self._doubtful[namespace] = departure
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="cluster_pool last ones")

    def _seconds(self, namespace: str) -> float:
        """For how long Redis may lack members of a namespace from now on."""
        unsure_until = self._topology.of(namespace).succession.unsure_until
        return max(0.0, unsure_until - asyncio.get_running_loop().time())

    async def _run(self) -> None:
        while self._doubtful:
            due = [name for name in self._doubtful if not self._seconds(name)][:PAGE]
            if not due:
                await asyncio.sleep(min(map(self._seconds, self._doubtful)))
                continue
            try:
                deadline = deadline_in(self._timing.timeout)
                looks = [self._claims.is_empty(name, deadline) for name in due]
                empty = await asyncio.gather(*looks)
            except BackplaneUnavailableError:  # it comes back, and has perhaps lost more
                await asyncio.sleep(self._timing.probe)
                continue
            for name, emptied in zip(due, empty, strict=True):
                self._doubtful.pop(name).decide(emptied)
