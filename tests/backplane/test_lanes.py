"""Lanes: the calls of a batch, and the calls under way over each shard."""

import asyncio
from typing import Any

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.batching import BROADCAST, SEND, NamespaceQueue, Operation, Run
from cluster_pool.backplane.lanes import Call, Lane, Lanes, calls_of
from cluster_pool.backplane.outage import Outage
from tests.support import async_test


class Shard:
    """A shard with nothing but its outage."""

    outage = Outage("nowhere")


def run_of(queue: NamespaceQueue, kind: int, deadline: float) -> Run:
    """One operation."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    return Run(queue, kind, [Operation(kind, "id", b"item", deadline, future)], deadline)


@async_test
async def test_each_namespace_has_a_call_of_its_own_and_the_last_one_is_known() -> None:
    """Messages of one namespace stay in order; a call that only publishes is marked."""
    shard: Any = Shard()
    lane = Lane(shard, whole=False)
    one, two = (NamespaceQueue(name, name, "nodes:", lane) for name in ("one", "two"))
    runs = [run_of(one, SEND, 9), run_of(two, BROADCAST, 9), run_of(one, BROADCAST, 9)]
    calls = calls_of(lane, runs)
    assert [call.runs for call in calls] == [[runs[0], runs[2]], [runs[1]]]
    assert [(call.routed, call.last) for call in calls] == [(True, False), (False, True)]
    assert calls_of(lane, []) == []


@async_test
async def test_operations_past_their_deadline_fail_on_every_lane() -> None:
    """With the reason of that shard; the others keep their deadlines."""
    home: Any = Shard()
    other: Any = Shard()
    lanes = Lanes(home)
    assert lanes.of(home).whole
    assert not lanes.of(other).whole
    lane = lanes.of(other)
    assert lane is lanes.of(other)
    queue = NamespaceQueue("n", "n", "nodes:", lane)
    late, later = run_of(queue, SEND, 5), run_of(queue, SEND, 7)
    lane.calls.add(Call(lane, [late, later], routed=True))
    lanes.of(home).ready["own"] = NamespaceQueue("own", "", "nodes:", lanes.of(home))
    assert lanes.fail_late(6) == 7
    error = late.operations[0].future.exception()
    assert isinstance(error, BackplaneUnavailableError)
    assert error.maybe_executed
    assert not later.operations[0].future.done()
    assert {one.channel for one in lanes.queues()} == {"n", "own"}
