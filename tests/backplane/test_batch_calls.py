"""The reply to a batch, read for each of its operations."""

import asyncio
from types import SimpleNamespace
from typing import Any

from cluster_pool import SendResult
from cluster_pool.backplane.batch_calls import BatchCalls
from cluster_pool.backplane.batching import BROADCAST, SEND, NamespaceQueue, Operation, Run
from cluster_pool.backplane.lanes import Call, Lane
from cluster_pool.backplane.succession import Succession
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.progress import NOWHERE, Mark
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError
from tests.support import async_test

SHARD: Any = SimpleNamespace(
    listens=lambda channel: channel == "n", succession=Succession(), commands="link"
)


def run(channel: str, kind: int, count: int) -> Run:
    """Operations of one kind in one namespace."""
    create = asyncio.get_running_loop().create_future
    operations = [Operation(kind, str(at), b"item", 9.0, create()) for at in range(count)]
    queue = NamespaceQueue(channel, f"{channel}:members", "nodes:", None)
    return Run(queue, kind, operations, 9.0)


def answer(
    runs: list[Run],
    reply: list[Any],
    *,
    routed: bool,
    shard: Any = SHARD,
    home: Any = SHARD,
    doubt: Any = None,
) -> Counters:
    """Read a reply to a batch; gives what was counted."""
    keys, counters, view = Keys(), Counters(), SimpleNamespace(doubt=doubt)
    calls = BatchCalls(home, keys, Identity(keys), view, counters, None)  # type: ignore[arg-type]
    calls.answer(Call(Lane(shard, whole=True), runs, routed=routed), reply)
    return counters


@async_test
async def test_each_item_gets_its_code_and_undelivered_ones_are_marked() -> None:
    """A run behind an item with an unknown owner is held as a whole; a late item fails as late."""
    sends, behind = run("n", SEND, 6), run("n", BROADCAST, 1)
    late, other = run("late", SEND, 2), run("other", BROADCAST, 1)
    doubted: list[Any] = []
    counters = answer(
        [sends, behind, late, other],
        [b"01235144", b"7 5", b"OOM no room", [b"a.0"], [b"HELD", 0, b"8 1", 3], [b"b.0"]],
        routed=True,
        doubt=lambda link, names: doubted.append((link, names)),
    )
    assert doubted == [("link", [b"b.0"])], "nobody listened there"
    results = [one.future for one in sends.operations]
    assert [one.result() for one in results[:3]] == [
        SendResult.ABSENT,
        SendResult.ROUTED,
        SendResult.UNREACHABLE,
    ]
    assert isinstance(results[3].exception(), BackplaneUnavailableError)
    assert sends.strangers == {sends.operations[4]: b"a.0"}
    assert results[5].result() is SendResult.ROUTED
    assert behind.strangers == {behind.operations[0]: b""}
    assert (late.late, late.strangers, sends.late) == (True, None, False)
    assert other.operations[0].future.result() == 3
    assert sends.queue.own_barrier == Mark("7", 5)
    assert (other.queue.barrier, late.queue.own_barrier) == (NOWHERE, NOWHERE)
    assert counters.published == 6


@async_test
async def test_envelopes_are_answered_late_or_refused_one_by_one() -> None:
    """Where this process subscribes, the last message's mark tells what must be heard first."""
    heard, late, refused = run("n", BROADCAST, 2), run("b", BROADCAST, 1), run("c", BROADCAST, 1)
    reply = [b"7 9", 2, b"LATE", 0, b"", b"OOM no room"]
    counters = answer([heard, late, refused], reply, routed=False)
    assert [one.future.result() for one in heard.operations] == [2, 2]
    assert heard.queue.barrier == Mark("7", 9)
    assert late.late
    assert not late.operations[0].future.done()
    assert isinstance(refused.operations[0].future.exception(), BackplaneUnavailableError)
    assert counters.published == 2


@async_test
async def test_an_item_that_meets_a_half_moved_slot_is_held_with_all_behind_it() -> None:
    """It is sent again; what was published before it is answered."""
    error = b"ERR Attempted to access a non local key in a cluster node"
    sends, behind = run("n", SEND, 3), run("n", BROADCAST, 1)
    answer([sends, behind], [b"016", b"", error, [], [b"HELD", 0], []], routed=True)
    assert [one.future.result() for one in sends.operations[:2]] == [
        SendResult.ABSENT,
        SendResult.ROUTED,
    ]
    assert sends.strangers == {sends.operations[2]: b""}
    assert behind.strangers == {behind.operations[0]: b""}
    assert "non local key" in sends.queue.why


@async_test
async def test_no_member_is_called_absent_while_claims_may_be_missing() -> None:
    """Neither for the lack of a claim at its shard, nor for that of a lease at home."""
    lost = Succession()
    lost.unsure_until = asyncio.get_running_loop().time() + 60
    for here, home, codes in (
        (lost, Succession(), [None, SendResult.ABSENT, SendResult.ROUTED]),
        (Succession(), lost, [SendResult.ABSENT, None, SendResult.ROUTED]),
    ):
        sends = run("n", SEND, 3)
        answer(
            [sends],
            [b"071", b"", b"", [], [], []],
            routed=True,
            shard=SimpleNamespace(listens=SHARD.listens, succession=here),
            home=SimpleNamespace(succession=home, commands=None),
        )
        outcomes = [one.future for one in sends.operations]
        assert [None if one.exception() else one.result() for one in outcomes] == codes
