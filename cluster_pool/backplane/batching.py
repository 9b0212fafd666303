"""Fair batches: picks waiting operations of many namespaces, in the order of each.

Pure: it is passed the time, and changes only the queues that it is given.
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

    ``id`` is the member's id, or the start of the node that the item is for; ``kept`` is 1 for a
    message to a member, which a history keeps.
    """

    __slots__ = ("deadline", "future", "id", "item", "kept", "kind")

    def __init__(
        self,
        kind: int,
        id: str,
        item: bytes,
        deadline: float,
        future: asyncio.Future[Any],
        kept: int = 0,
    ) -> None:
        self.kind = kind
        self.kept = kept
        self.id = id
        self.item = item
        self.deadline = deadline
        self.future = future


class NamespaceQueue:
    """The operations of one namespace (or one node's channel): waiting, in flight, not heard back.

    A barrier is the mark of the last message that this process published and will hear itself:
    ``barrier`` on the channel of the namespace, ``own_barrier`` on the channel of this start.

    Args:
        members: the key of the namespace's members; "" for a node's channel.
        routed: the channel of targeted items of one start, without its name at the end.
        lane: the :class:`.Lane` over which it leaves.
    """

    __slots__ = (
        "again",
        "barrier",
        "channel",
        "flying",
        "lane",
        "members",
        "own_barrier",
        "routed",
        "waiting",
        "why",
    )

    def __init__(self, channel: str, members: str, routed: str, lane: Any) -> None:
        self.channel = channel
        self.members = members
        self.routed = routed
        self.lane = lane
        self.waiting: deque[Operation] = deque()
        self.again: list[Operation] = []
        """Operations that were certainly not executed. They are sent again, ahead of ``waiting``,
        as soon as nothing of this queue is in flight or being looked up."""
        self.why = ""
        """The reason for which operations were sent again, until others are answered."""
        self.flying = 0
        """The number of runs in flight and of lookups."""
        self.barrier = NOWHERE
        self.own_barrier = NOWHERE


@dataclass(slots=True, eq=False)
class Run:
    """Consecutive operations of one kind in one namespace.

    Redis must not execute it after ``due``: the deadline of its first operation, or ``due`` of the
    run before it from the same queue in this batch, whichever is earlier. So no operation has less
    time because of one behind it, and when a run is late, so are the runs after it.
    """

    queue: NamespaceQueue
    kind: int
    """``SEND`` or ``BROADCAST``, of every operation."""
    operations: list[Operation]
    due: float
    late: bool = False
    """Whether Redis refused it as late."""
    strangers: "dict[Operation, bytes] | None" = None
    """Operations that were not executed because an owner must be looked up: each with the unknown
    incarnation, or b"" if it stands behind such a one. None: all were executed."""

    @property
    def bytes(self) -> int:
        """The size of all items."""
        return sum([len(operation.item) for operation in self.operations])


BatchStage = tuple[list[Run], list[Run]]
"""Runs of sends and runs of broadcasts; each run is of another namespace."""


@dataclass(slots=True)
class Batch:
    """The stages that are sent together, and operations that need not be sent."""

    stages: list[BatchStage] = field(default_factory=list)
    queues: list[NamespaceQueue] = field(default_factory=list)
    sends: bool = False
    """Whether it has targeted items."""
    dead: list[Operation] = field(default_factory=list)
    """Operations that are answered already or past their deadline; removed from their queues."""

    @property
    def runs(self) -> list[Run]:
        """All runs, in the order of execution."""
        return [run for stage in self.stages for runs in stage for run in runs]


def next_batch(ready: dict[str, NamespaceQueue], now: float) -> Batch:
    """The next batch: as many runs of each ready queue as size and fairness allow.

    A stage has one run of each queue. Queues that had their turn are removed from ``ready``, the
    others keep their places.
    """
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
    """The next run of a queue, of at most ``items`` and ``size`` bytes; None when there is none."""
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
            kind, kept, due = head.kind, head.kept, min(due, head.deadline)
        elif head.kind != kind or head.kept != kept or size < len(head.item) or head.deadline < due:
            break
        size -= len(head.item)
        taken.append(waiting.popleft())
    return Run(queue, taken[0].kind, taken, due) if taken else None
