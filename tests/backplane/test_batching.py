"""Batches: their order, their shares, and the time that each run has."""

import asyncio
from math import inf
from typing import Any

import pytest

from cluster_pool.backplane.batching import (
    BATCH_ITEMS,
    BROADCAST,
    MIN_SHARE,
    SEND,
    Batch,
    NamespaceQueue,
    Operation,
    next_batch,
)


@pytest.fixture
def loop() -> Any:
    """A loop that never runs, for the futures."""
    made = asyncio.new_event_loop()
    yield made
    made.close()


def queue_of(
    loop: asyncio.AbstractEventLoop, name: str, *wanted: tuple[int, float]
) -> NamespaceQueue:
    """A queue of operations, each of a kind and a deadline; their items tell their places."""
    queue = NamespaceQueue(name, f"{name}:members", "nodes:", None)
    for at, (kind, deadline) in enumerate(wanted):
        queue.waiting.append(Operation(kind, "id", b"%d" % at, deadline, loop.create_future()))
    return queue


def runs_of(batch: Batch) -> list[tuple[str, list[int], float]]:
    """Per run, in the order of their calls: queue, places, due."""
    return [
        (run.queue.channel, [int(one.item) for one in run.operations], run.due)
        for stage in batch.stages
        for runs in stage
        for run in runs
    ]


def test_neighbours_of_a_kind_are_joined(loop: asyncio.AbstractEventLoop) -> None:
    """Only those; each run of a namespace is in a stage of its own."""
    queue = queue_of(loop, "n", (SEND, 9), (SEND, 9), (BROADCAST, 9), (SEND, 9))
    assert runs_of(next_batch({"n": queue}, 0)) == [
        ("n", [0, 1], 9),
        ("n", [2], 9),
        ("n", [3], 9),
    ]


def test_no_run_is_late_because_of_one_behind_it(loop: asyncio.AbstractEventLoop) -> None:
    """A run is due with its first item; an item that is due earlier begins another run."""
    queue = queue_of(loop, "n", (SEND, 5), (SEND, 9), (SEND, 5), (SEND, 2), (SEND, 7))
    other = queue_of(loop, "m", (SEND, 1))
    batch = next_batch({"n": queue, "m": other}, 0)
    assert sorted(runs_of(batch)) == [
        ("m", [0], 1),
        ("n", [0, 1, 2], 5),
        ("n", [3, 4], 2),
    ]


def test_a_run_is_due_no_later_than_the_one_before_it(loop: asyncio.AbstractEventLoop) -> None:
    """When Redis refuses one as late it refuses those that follow, so that order is kept."""
    queue = queue_of(loop, "n", (SEND, 2), (BROADCAST, 9), (SEND, 1), (BROADCAST, 9))
    assert [due for _, _, due in runs_of(next_batch({"n": queue}, 0))] == [2, 2, 1, 1]


def test_expired_and_answered_operations_are_not_sent(loop: asyncio.AbstractEventLoop) -> None:
    """Both are given back to be failed, and delay no others."""
    queue = queue_of(loop, "n", (SEND, 1), (SEND, 9), (SEND, 9), (SEND, 3))
    queue.waiting[1].future.cancel()
    batch = next_batch({"n": queue}, 3)
    assert runs_of(batch) == [("n", [2], 9)]
    assert sorted(int(one.item) for one in batch.dead) == [0, 1, 3]
    assert not queue.waiting


def test_every_namespace_has_a_share(loop: asyncio.AbstractEventLoop) -> None:
    """A namespace that had no turn keeps its place."""
    names = [f"n{at}" for at in range(100)]
    ready = {name: queue_of(loop, name, *[(SEND, inf)] * 20) for name in names}
    batch = next_batch(ready, 0)
    places = [len(places) for _, places, _ in runs_of(batch)]
    assert sum(places) == BATCH_ITEMS
    assert max(places) == MIN_SHARE
    assert list(ready) == names[len(places) :]


def test_empty_queues_make_no_batch(loop: asyncio.AbstractEventLoop) -> None:
    """Neither no queue nor an empty one makes a call."""
    assert runs_of(next_batch({}, 0)) == []
    queue = queue_of(loop, "n")
    batch = next_batch({"n": queue}, 0)
    assert runs_of(batch) == []
    assert batch.queues == [queue]
