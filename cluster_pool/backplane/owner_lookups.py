"""Lookups of owners that the lease view did not know, and the sends that wait for them.

:mod:`.lease_view` explains them. Nothing is sent from here.
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial

from redis.exceptions import ResponseError

from cluster_pool.backplane.batching import NamespaceQueue, Operation
from cluster_pool.backplane.lease_view import LeaseView
from cluster_pool.backplane.pauses import Pauses
from cluster_pool.backplane.pending import fail
from cluster_pool.backplane.refusals import is_elsewhere, refusal
from cluster_pool.backplane.shard import Shard
from cluster_pool.exceptions import BackplaneUnavailableError

Strangers = dict[Operation, bytes]
"""Operations that were not executed, each with the unknown incarnation, if any."""


class OwnerLookups:
    """Lookups under way. A queue counts as in flight while there is one for it.

    Args:
        shard: the shard that has the leases.
        pauses: for queues with no owner to look up: there is no connection for that, or their
            members are not registered again yet.
        over: called with the queues whose lookup has ended: their operations may be sent again.
    """

    def __init__(
        self,
        shard: Shard,
        view: LeaseView,
        pauses: Pauses,
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

        Without a connection nothing is looked up: with the next one the view begins anew. Members
        may be at another shard than the leases; their queues wait for a moment, and try again.
        """
        commands = self._shard.commands
        unknown = list(dict.fromkeys(filter(None, strangers.values())))
        if commands is None or not unknown:
            self._pauses.begin(queues)
            return
        if self._view.knows(unknown, reading):
            return
        for queue in queues:
            queue.flying += 1
            self._queues[queue] = None
        self._view.look_up(commands, unknown, partial(self._end, strangers, queues))

    def _end(
        self,
        strangers: Strangers,
        queues: Collection[NamespaceQueue],
        error: BaseException | None,
    ) -> None:
        """The items are sent again, unless the owners cannot be looked up."""
        why = refusal(error) if isinstance(error, ResponseError) else str(error)
        moving = error is not None and is_elsewhere(error)
        if error is not None and not moving:
            for operation in strangers:
                fail(operation, BackplaneUnavailableError(f"not sent: {why}"))
        if moving:  # the slot of the leases
            self._pauses.begin(queues)
        for queue in queues:
            queue.why = f"its owner cannot be looked up: {why}" if moving else ""
            queue.flying -= 1
            del self._queues[queue]
        self._over(queues)
