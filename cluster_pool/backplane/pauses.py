"""Queues that pause before operations that were not executed are sent again.

A slot that moves is served again after a few milliseconds, mostly; nothing says when.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from cluster_pool.backplane.batching import NamespaceQueue

PAUSE: Final = 0.03
"""Seconds of a pause."""


class Pauses:
    """Pauses under way. A queue counts as in flight during its pause.

    Args:
        over: told of queues whose pause is over.
    """

    def __init__(self, over: Callable[[Collection[NamespaceQueue]], None]) -> None:
        self._over = over
        self._loop = asyncio.get_running_loop()
        self._queues: dict[NamespaceQueue, int] = {}

    @property
    def queues(self) -> Iterator[NamespaceQueue]:
        """The queues that pause."""
        return iter(self._queues)

    def begin(self, queues: Iterable[NamespaceQueue]) -> None:
        """Begin a pause of these queues; nothing of them is sent meanwhile."""
        waiting = list(queues)
        for queue in waiting:
            queue.flying += 1
            self._queues[queue] = self._queues.get(queue, 0) + 1
        self._loop.call_later(PAUSE, self._end, waiting)

    def _end(self, waiting: list[NamespaceQueue]) -> None:
        for queue in waiting:
            queue.flying -= 1
            self._queues[queue] -= 1
            if not self._queues[queue]:
                del self._queues[queue]
        self._over(waiting)
