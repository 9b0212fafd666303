"""What leaves together: fair batches of what many namespaces have waiting, in the order of each.

Pure: it is given the time, and changes nothing but the queues that it takes from.
"""

import asyncio
import itertools
from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import Any, Final

from cluster_pool.core.progress import NOWHERE

BATCH_ITEMS: Final = 500
BATCH_BYTES: Final = 1024 * 1024
MIN_SHARE: Final = 8
"""Items of one namespace in a batch, however many namespaces are ready."""

SEND, BROADCAST = 0, 1


class Operation:
    """One item on its way to Redis. ``future`` gives a SendResult, or how many nodes heard it.

    ``id`` is of the member, or the start of the node to which it is said.
    """

    __slots__ = ("deadline", "future", "id", "item", "kind")

    def __init__(
        self,
        kind: int,
        id: str,
        item: bytes,
        deadline: float,
        future: asyncio.Future[Any],
    ) -> None:
        self.kind = kind
        self.id = id
        self.item = item
        self.deadline = deadline
        self.future = future


class NamespaceQueue:
    """What one namespace (or one node's channel) has waiting, in flight, or not heard back yet.

    The barriers are the marks of the last messages that were published from here, on the channel
    of the namespace and on this node's own, and will be heard here.
    """

    __slots__ = ("again", "barrier", "channel", "flying", "members", "own_barrier", "waiting")

    def __init__(self, channel: str, members: str) -> None:
        self.channel = channel
        self.members = members
        self.waiting: deque[Operation] = deque()
        self.again: list[Operation] = []
        """What was certainly not carried out and is sent again, ahead of what waits, as soon as
        nothing of this queue is in flight or looked up."""
        self.flying = 0
        """Runs in flight, and lookups."""
        self.barrier = NOWHERE
        self.own_barrier = NOWHERE


@dataclass(slots=True, eq=False)
class Run:
    """Neighbours of one kind in one namespace.

    ``due`` is when Redis must not carry it out any more: the deadline of its first operation, or
    that of the run of its queue before it in the batch, whichever is earlier. So no operation has
    less time because of one behind it, and when a run is late, so are those that follow it.
    """

    queue: NamespaceQueue
    kind: int
    """``SEND`` or ``BROADCAST``, of every operation."""
    operations: list[Operation]
    due: float
    late: bool = False
    """Whether Redis refused it as late."""
    strangers: "dict[Operation, bytes] | None" = None
    """What was not carried out, until an owner is looked up: operations with the incarnation that
    is not known, b"" for those that came behind such a one. None: everything was."""

    @property
    def bytes(self) -> int:
        """Of all items."""
        return sum([len(operation.item) for operation in self.operations])


BatchStage = tuple[list[Run], list[Run]]
"""Runs of sends and runs of broadcasts, of one namespace each."""


@dataclass(slots=True)
class Batch:
    """As many stages as leave together, and what was found dead on the way."""

    stages: list[BatchStage] = field(default_factory=list)
    queues: list[NamespaceQueue] = field(default_factory=list)
    sends: bool = False
    """Whether anything in it is targeted."""
    dead: list[Operation] = field(default_factory=list)
    """Answered already, or past their deadline; they are in no queue any more."""

    @property
    def runs(self) -> list[Run]:
        """All of them, in the order in which they are carried out."""
        return [run for stage in self.stages for runs in stage for run in runs]


def next_batch(ready: dict[str, NamespaceQueue], now: float) -> Batch:
    """As many runs of each namespace that is ready as a batch and fairness allow; a stage holds one
    run of each. Whose turn has come is taken out of ``ready``, the others keep their places."""
    batch = Batch()
    items, size = BATCH_ITEMS, BATCH_BYTES
    share = max(MIN_SHARE, BATCH_ITEMS // max(1, len(ready)))
    while ready and items > 0 and size > 0:
        queue = ready.pop(next(iter(ready)))
        batch.queues.append(queue)
        left, due = min(share, items), inf
        for number in itertools.count():
            run = _next_run(queue, left, size, due, now, batch.dead)
            if run is None:
                break
            if number == len(batch.stages):
                batch.stages.append(([], []))
            batch.stages[number][run.kind].append(run)
            batch.sends |= run.kind == SEND
            due = run.due
            left -= len(run.operations)
            items -= len(run.operations)
            size -= run.bytes
    return batch


def _next_run(
    queue: NamespaceQueue, items: int, size: int, due: float, now: float, dead: list[Operation]
) -> Run | None:
    """The next run of a queue, of so many items and bytes at most; None when there is none."""
    if size <= 0:
        return None
    taken: list[Operation] = []
    waiting = queue.waiting
    while waiting and len(taken) < items:
        head = waiting[0]
        if head.future.done() or head.deadline <= now:
            dead.append(waiting.popleft())
            continue
        if not taken:
            kind, due = head.kind, min(due, head.deadline)
        elif head.kind != kind or size < len(head.item) or head.deadline < due:
            break
        size -= len(head.item)
        taken.append(waiting.popleft())
    return Run(queue, taken[0].kind, taken, due) if taken else None
