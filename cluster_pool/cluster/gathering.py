"""A broadcast whose result is what all nodes say of it, or an error, or the deadline.

Like :class:`.Confirmation` it makes no task.
"""

import asyncio

from cluster_pool.cluster.replies import Replies
from cluster_pool.core.results import BroadcastReport
from cluster_pool.core.tally import Tally, report_of


class Gathering:
    """Waits until a broadcast was sent, and then for the tally of each node that heard it.

    Args:
        deadline: from when on nodes that have not answered are silent; of the loop's clock.

    Attributes:
        to: the address for the tallies.
        result: gets the report, or the error of a broadcast that was not sent. When it is
            cancelled, a broadcast that was not sent yet is dropped.
    """

    def __init__(self, replies: Replies, deadline: float, loop: asyncio.AbstractEventLoop) -> None:
        self._replies = replies
        self._deadline = deadline
        self._loop = loop
        self._nodes: int | None = None
        self._stopped = False
        self._sent: asyncio.Future[int] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._tallies: dict[str, Tally] = {}
        """By the start of the node: an answer may come twice."""
        self.to = replies.gather(self._counted)
        self.result: asyncio.Future[BroadcastReport] = loop.create_future()
        self.result.add_done_callback(self._over)

    def begin(self, sent: asyncio.Future[int]) -> asyncio.Future[BroadcastReport]:
        """Wait for a broadcast that is queued; returns the future of the result."""
        self._sent = sent
        sent.add_done_callback(self._was_sent)
        return self.result

    def _was_sent(self, sent: asyncio.Future[int]) -> None:
        if self.result.done():
            return
        if sent.cancelled():
            self.result.cancel()
        elif (error := sent.exception()) is not None:
            self.result.set_exception(error)
        else:
            self._nodes = sent.result()
            self._timer = self._loop.call_at(self._deadline, self._end)
            self._look()

    def _counted(self, node: str, tally: Tally | None) -> None:
        """A node has answered; or this process stops, and no more answers come."""
        if tally is None:
            self._stopped = True
        else:
            self._tallies.setdefault(node, tally)
        self._look()

    def _look(self) -> None:
        if self._nodes is not None and (self._stopped or len(self._tallies) >= self._nodes):
            self._end()

    def _end(self) -> None:
        if not self.result.done():
            self.result.set_result(report_of(self._nodes or 0, self._tallies.values()))

    def _over(self, _: asyncio.Future[BroadcastReport]) -> None:
        self._replies.forget(self.to)
        if self._timer is not None:
            self._timer.cancel()
        if self._sent is not None:
            self._sent.cancel()
