"""Lookups of owners that the lease view did not know, and the sends that wait for them.

:mod:`.lease_view` explains them. Nothing is sent from here.
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial

from cluster_pool.backplane.batching import NamespaceQueue, Operation
from cluster_pool.backplane.lease_view import LeaseView
from cluster_pool.backplane.pauses import Pauses
from cluster_pool.backplane.pending import fail
from cluster_pool.backplane.shard import Shard
from cluster_pool.core.results import SendResult
from cluster_pool.exceptions import BackplaneUnavailableError

Strangers = dict[Operation, bytes]
"""Operations that were not executed, each with the unknown incarnation, if any."""


class OwnerLookups:
    """Lookups under way. A queue counts as in flight while there is one for it.

    Args:
        shard: the shard that has the leases.
        pauses: for queues whose owners cannot be looked up at the moment; None where nothing is
            sent then either.
        over: called with the queues whose lookup has ended: their operations may be sent again.
    """

    def __init__(
        self,
        shard: Shard,
        view: LeaseView,
        pauses: Pauses | None,
        over: Callable[[Collection[NamespaceQueue]], None],
    ) -> None:
        self._shard = shard
        self._view = view
        self._pauses = pauses
        self._over = over
        self._queues: dict[NamespaceQueue, None] = {}

    @property
    def queues(self) -> Iterator[NamespaceQueue]:
        """The queues that wait for a lookup."""
        return iter(self._queues)

    def begin(self, strangers: Strangers, queues: Collection[NamespaceQueue], reading: int) -> None:
        """Look owners up, unless the view was read since ``reading`` and has them by now.

        Without a connection nothing is looked up: with the next one the view begins anew, and
        everything is sent again. On a cluster members may be at another shard than the leases;
        their queues wait for a moment, and try again.
        """
        commands = self._shard.commands
        unknown = list(dict.fromkeys(filter(None, strangers.values())))
        if commands is None and self._pauses is not None:
            self._pauses.begin(queues)
        if commands is None or self._view.knows(unknown, reading):
            return
        for queue in queues:
            queue.flying += 1
            self._queues[queue] = None
        self._view.look_up(commands, unknown, partial(self._end, strangers, queues))

    def _end(
        self,
        strangers: Strangers,
        queues: Collection[NamespaceQueue],
        ended: Collection[bytes],
        error: BaseException | None,
    ) -> None:
        """Answer the items of owners whose lease has ended; the others are sent again."""
        for operation, incarnation in strangers.items():
            if error is not None:
                fail(operation, BackplaneUnavailableError(f"not sent: {error}"))
            elif incarnation in ended and not operation.future.done():
                operation.future.set_result(SendResult.UNREACHABLE)
        for queue in queues:
            queue.flying -= 1
            del self._queues[queue]
        self._over(queues)
