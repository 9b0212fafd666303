"""Keeps the order between a connection of ours and its library's own methods.

A pool writes at the end of a turn of the loop, and sends by a queue where a library makes it wait.
What an endpoint sends by the library itself meanwhile would overtake that, and its close would even
drop it, although it counts as delivered. So the library's own way out goes through here.
"""

from typing import Any

from cluster_pool.transports.base import Outbox
from cluster_pool.transports.queued import SendQueue


class Behind:
    """The outboxes and queues that go first: of each connection that shares the WebSocket.

    Args:
        way: the library's own way out.
    """

    __slots__ = ("_first", "way")

    def __init__(self, way: Any) -> None:
        self.way = way
        self._first: list[tuple[Outbox, SendQueue]] = []

    def add(self, outbox: Outbox, queue: SendQueue) -> None:
        """Send what ``outbox`` has, and what is queued then, before anything else."""
        self._first.append((outbox, queue))

    def remove(self, queue: SendQueue) -> bool:
        """Forget a queue; True if none is left."""
        self._first = [one for one in self._first if one[1] is not queue]
        return not self._first

    def write(self) -> None:
        """Write what is pending."""
        for outbox, _ in self._first:
            outbox.write_pending()

    async def wait(self) -> None:
        """Write what is pending, and wait until that is sent; the queues themselves do not wait."""
        self.write()
        if not any(queue.is_sending_here() for _, queue in self._first):
            for _, queue in self._first:
                await queue.wait_turn()
