"""Lanes: the ready queues and the calls in flight of each shard.

:mod:`.outbound` decides what leaves when.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from math import inf
from typing import Final

from cluster_pool.backplane.batching import SEND, NamespaceQueue, Run
from cluster_pool.backplane.pending import fail_late
from cluster_pool.backplane.shard import Shard
from cluster_pool.exceptions import BackplaneUnavailableError

UNANSWERED: Final = "Redis did not answer in time"


class Lane:
    """The queues and calls of one shard.

    Attributes:
        shard: this one.
        whole: whether one call may hold runs of several namespaces. Where it may not, each has a
            call of its own.
        ready: the queues that wait for their turn, by channel. The first of a plain dict is found
            past all that was taken out before it.
        calls: the calls in flight.
        batches: the number of batches whose last call is in flight.
        scheduled: whether the next batches leave at the end of this turn of the loop.
    """

    __slots__ = ("batches", "calls", "ready", "scheduled", "shard", "whole")

    def __init__(self, shard: Shard, *, whole: bool) -> None:
        self.shard = shard
        self.whole = whole
        self.ready: OrderedDict[str, NamespaceQueue] = OrderedDict()
        self.calls: set[Call] = set()
        self.batches = 0
        self.scheduled = False

    def unanswered(self) -> BackplaneUnavailableError:
        """The error for operations that were sent over it and were not answered."""
        return self.shard.outage.error(UNANSWERED, maybe_executed=True)


class Call:
    """A batch in flight, or the part of it for one namespace.

    Attributes:
        runs: in order.
        routed: whether it routes anything; else it only publishes.
        last: whether no call of the same batch comes behind it.
        reading: the reading of the view that went with it.
        written: when, on the clock ``monotonic``: that of uvloop's loop counts milliseconds.
    """

    __slots__ = ("lane", "last", "reading", "routed", "runs", "written")

    def __init__(self, lane: Lane, runs: list[Run], *, routed: bool, last: bool = True) -> None:
        self.lane = lane
        self.runs = runs
        self.routed = routed
        self.last = last
        self.reading = 0
        self.written = 0.0


def calls_of(lane: Lane, runs: list[Run]) -> list[Call]:
    """The calls of a batch, where each namespace has one of its own."""
    groups: dict[NamespaceQueue, list[Run]] = {}
    for run in runs:
        groups.setdefault(run.queue, []).append(run)
    calls = [
        Call(lane, part, routed=any(run.kind == SEND for run in part), last=False)
        for part in groups.values()
    ]
    for call in calls[-1:]:
        call.last = True
    return calls


def with_reason(error: BackplaneUnavailableError, why: str) -> BackplaneUnavailableError:
    """The error for operations that were sent once more, and were not answered."""
    return BackplaneUnavailableError(f"{error}; before that, {why}", maybe_executed=True)


class Lanes:
    """The lanes of one start.

    Args:
        home: the shard that has what belongs to no namespace, or everything: one call to it may
            hold runs of several channels.
    """

    def __init__(self, home: Shard) -> None:
        self._home = home
        self._lanes: dict[Shard, Lane] = {}

    def of(self, shard: Shard) -> Lane:
        """The lane of a shard."""
        lane = self._lanes.get(shard)
        if lane is None:
            lane = self._lanes[shard] = Lane(shard, whole=shard is self._home)
        return lane

    def keep(self, shards: Iterable[Shard]) -> None:
        """Forget the lanes of other shards than these, once nothing of theirs is in flight."""
        kept = set(shards)
        for shard, lane in list(self._lanes.items()):
            if shard not in kept and not (lane.calls or lane.ready):
                del self._lanes[shard]

    def queues(self) -> Iterator[NamespaceQueue]:
        """The queues that are ready or have operations in flight."""
        for lane in self._lanes.values():
            yield from (run.queue for call in lane.calls for run in call.runs)
            yield from lane.ready.values()

    def fail_late(self, now: float) -> float:
        """Fail operations in flight past their deadline; gives the soonest deadline of the rest."""
        soonest = inf
        for lane in self._lanes.values():
            unanswered = lane.unanswered()
            for call in lane.calls:
                for run in call.runs:
                    why = run.queue.why
                    error = with_reason(unanswered, why) if why else unanswered
                    soonest = min(soonest, fail_late(run.operations, now, error))
        return soonest
