"""The outgoing batches: bounded in flight, fair to small namespaces, in order."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cluster_pool.backplane.batching import BATCH_BYTES, BATCH_ITEMS
from cluster_pool.backplane.command_connection import ScriptCall
from cluster_pool.backplane.lease_view import LeaseView
from cluster_pool.backplane.outage import Outage
from cluster_pool.backplane.outbound import IN_FLIGHT, Outbound
from cluster_pool.backplane.succession import Succession
from cluster_pool.backplane.topology import SingleTopology
from cluster_pool.core.config import Limits
from cluster_pool.core.envelope import read_items
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.progress import Progress
from cluster_pool.core.results import SendResult
from cluster_pool.core.seals import GOOD_FOR_US, Seals
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import BackplaneUnavailableError, PendingLimitError
from tests.support import async_test

LATER = 1e9


LISTED = b"start9.0"
"""The incarnation of an owner that lives."""


class Call:
    """A script call under way: its runs in order, each a namespace with its items."""

    def __init__(self, script: ScriptCall) -> None:
        self.script = script
        self.name = script.name
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        arguments: list[Any] = list(script.arguments)
        self.runs: list[tuple[str, str, list[bytes]]] = []
        """Kind, namespace, items."""
        if self.name == "send":
            self._read_send(script.keys, arguments[7], arguments[8:])
        elif self.name == "publish":
            self.not_after = arguments[3]
            self.runs = [
                self._envelope(channel, count, joined)
                for channel, _, count, joined in zip(*[iter(arguments[2:])] * 4, strict=True)
            ]

    def _read_send(self, keys: list[str], envelopes: int, rest: list[Any]) -> None:
        members = keys[: len(keys) - 2 * envelopes : 2]
        heads, rest = rest[: 5 * envelopes], rest[5 * envelopes :]
        sizes, items = rest[2 : 3 * len(members) : 3], rest[3 * len(members) + 1 :: 2]
        self.not_after = rest[0]
        for key, size in zip(members, sizes, strict=True):
            self.runs.append(("send", key.split("{")[1].split("}")[0], list(items[:size])))
            items = items[size:]
        published = list(zip(*[iter(heads)] * 5, strict=True))
        for after, channel, _, count, joined in reversed(published):
            self.runs.insert(after, self._envelope(channel, count, joined))

    @staticmethod
    def _envelope(channel: str, count: int, joined: bytes) -> tuple[str, str, list[bytes]]:
        size = len(joined) // count
        items = [joined[at : at + size] for at in range(0, len(joined), size)]
        return "publish", channel.split("{")[1].split("}")[0], items

    @property
    def items(self) -> dict[str, list[bytes]]:
        """The items by namespace."""
        items: dict[str, list[bytes]] = {}
        for _, namespace, some in self.runs:
            items.setdefault(namespace, []).extend(some)
        return items

    @property
    def count(self) -> int:
        return sum(map(len, self.items.values()))

    def answer(self) -> None:
        """Redis has carried it out."""
        if self.name == "living":
            self.future.set_result([[[LISTED, b"%d" % 1e15], [], 0], []])
            return
        kinds = [kind for kind, _, _ in self.runs]
        heard = [b"7 1", 1] * kinds.count("publish")
        sent = sum(len(items) for kind, _, items in self.runs if kind == "send")
        routed = [b"1" * sent, b"", b"", [], heard, []]
        self.future.set_result(routed if self.name == "send" else heard)


class FakeCommands:
    """Keeps the calls that were made until they are answered."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.asked = False
        """Whether tests answer questions about leases; otherwise they are answered at once."""

    def call(self, name: str, *arguments: Any) -> asyncio.Future[Any]:
        """Answer a plain reading of leases."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        future.set_result([LISTED, b"%d" % 1e15] if name == "ZRANGE" else [])
        return future

    def script(self, script: ScriptCall) -> asyncio.Future[Any]:
        call = Call(script)
        if call.name == "living" and not self.asked:
            call.answer()
        else:
            self.calls.append(call)
        return call.future

    @property
    def flying(self) -> list[Call]:
        """The calls without an answer."""
        return [call for call in self.calls if not call.future.done()]


class FakeShard(SimpleNamespace):
    """Stands for a shard, among others."""

    __hash__ = object.__hash__


def make_bus(commands: FakeCommands, seals: Seals | None = None, **limits: int) -> Outbound:
    """A bus over a link that Redis answers when a test says so."""
    shard: Any = FakeShard(
        commands=commands,
        outage=Outage("nowhere"),
        sender="start 1",
        succession=Succession(),
        clock=SimpleNamespace(
            at=lambda moment: int(moment * 1e6), not_before=lambda moment: int(moment * 1e6) + 1
        ),
        redis_time_at_most=lambda: int(asyncio.get_running_loop().time() * 1e6) + 1,
        listens=lambda channel: False,
        subscriptions=None,
        connected=None,
        script=None,
        publish=None,
        start=None,
        stop=None,
    )
    outbound = Outbound(
        SingleTopology(shard, Keys()),
        Keys(),
        Identity(Keys(), "node-1"),
        Progress(),
        LeaseView(Keys(), shard.clock, 3.0),
        limits=Limits(**limits),
        counters=Counters(),
        seals=seals,
    )
    outbound.start()
    return outbound


async def turns() -> None:
    """Let the loop run until nothing more happens."""
    for _ in range(4):
        await asyncio.sleep(0)


async def answer_rest(commands: FakeCommands) -> None:
    """Answer the calls under way, in order, until none follows."""
    while commands.flying:
        commands.flying[0].answer()
        await turns()


@async_test
async def test_a_sealed_message_is_carried_out_soon_or_sealed_again() -> None:
    """However long its sender waits; each seal has a counter of its own."""
    commands = FakeCommands()
    outbound = make_bus(commands, Seals("not known to strangers"))
    before = asyncio.get_running_loop().time()
    sent = outbound.send("n", "1", b"item", LATER)
    await turns()
    await asyncio.sleep(0.01)
    commands.calls[0].future.set_result([b"4", b"", b"", [], [], []])
    await turns()
    after = asyncio.get_running_loop().time()
    for call in commands.calls:
        assert before * 1e6 + GOOD_FOR_US <= call.not_after <= after * 1e6 + GOOD_FOR_US
    (first,), (second,) = (call.items["n"] for call in commands.calls)
    counters = [next(read_items(item))[1] for item in (first, second)]
    assert counters[0] + 10_000 <= counters[1]
    await answer_rest(commands)
    assert sent.result() is SendResult.ROUTED


@async_test
async def test_no_more_than_two_batches_are_in_flight() -> None:
    """Messages sent meanwhile gather and leave together; a batch has at most 500 items."""
    commands = FakeCommands()
    outbound = make_bus(commands)
    sent = []
    for number in range(10):
        sent += [outbound.send(f"n{number}", "1", b"item", LATER) for _ in range(300)]
        await turns()
        assert len(commands.flying) == min(number + 1, IN_FLIGHT)
    commands.flying[0].answer()
    await turns()
    assert len(commands.flying) == IN_FLIGHT
    assert len(commands.calls[-1].items) == 8, "all that had gathered, each with its share"
    await answer_rest(commands)
    assert max(call.count for call in commands.calls) <= BATCH_ITEMS
    assert {future.result() for future in sent} == {SendResult.ROUTED}
    assert outbound.pending == 0


@async_test
async def test_a_batch_is_bounded_in_bytes() -> None:
    """A megabyte in a call, with any items."""
    commands = FakeCommands()
    outbound = make_bus(commands)
    for number in range(30):
        outbound.send(f"n{number % 2}", "1", b"x" * 200_000, LATER)
    await turns()
    await answer_rest(commands)
    sizes = [
        sum(len(item) for run in call.items.values() for item in run) for call in commands.calls
    ]
    assert sum(sizes) == 30 * 200_000
    assert max(sizes) <= BATCH_BYTES + 200_000
    assert outbound.pending == 0


@async_test
async def test_a_huge_namespace_does_not_starve_a_small_one() -> None:
    """However many wait in front of it, what a small one sends leaves with the next batch."""
    commands = FakeCommands()
    outbound = make_bus(commands)
    for _ in range(9_000):
        outbound.send("huge", "1", b"item", LATER)
    await turns()
    assert [set(call.items) for call in commands.calls] == [{"huge"}]
    for _ in range(5):
        small = [outbound.send(f"small{number}", "1", b"item", LATER) for number in range(20)]
        before = len(commands.calls)
        commands.flying[0].answer()
        await turns()
        left = {name for call in commands.calls[before:] for name in call.items}
        assert left == {"huge", *[f"small{number}" for number in range(20)]}
        for call in commands.flying:
            call.answer()
        await asyncio.gather(*small)
        await turns()
    assert outbound.pending > 0, "the huge one was waiting all that time"
    await answer_rest(commands)


@async_test
async def test_runs_of_one_namespace_leave_in_order() -> None:
    """Only neighbours of a kind are joined: a broadcast between two sends stays between them."""
    commands = FakeCommands()
    outbound = make_bus(commands)
    for number in range(9):
        item = b"%d" % number
        if number % 3 == 1:
            outbound.broadcast("n", item, LATER)
        else:
            outbound.send("n", "1", item, LATER)
    await turns()
    await answer_rest(commands)
    runs = [run for call in commands.calls for run in call.runs]
    assert [(kind, b"".join(items)) for kind, _, items in runs] == [
        ("send", b"0"),
        ("publish", b"1"),
        ("send", b"23"),
        ("publish", b"4"),
        ("send", b"56"),
        ("publish", b"7"),
        ("send", b"8"),
    ]


@async_test
async def test_waiting_messages_are_bounded_and_their_room_comes_back() -> None:
    """Queued ones and those in flight count alike, until they are answered."""
    commands = FakeCommands()
    outbound = make_bus(commands, pending_messages=100)
    for _ in range(100):
        outbound.broadcast("n", b"item", LATER)
    with pytest.raises(PendingLimitError):
        outbound.send("n", "1", b"item", LATER)
    await turns()
    with pytest.raises(PendingLimitError):
        outbound.send("n", "1", b"item", LATER)
    await answer_rest(commands)
    outbound.send("n", "1", b"item", LATER)
    await turns()
    await answer_rest(commands)
    assert outbound.pending == 0


@async_test
async def test_a_cancelled_message_takes_no_room() -> None:
    """Wherever it is in its queue, also behind others that still wait."""
    commands = FakeCommands()
    outbound = make_bus(commands, pending_messages=100)
    kept = [outbound.broadcast(f"n{at}", b"item", LATER) for at in range(10)]
    for turn in range(3):
        for future in [outbound.send(f"n{at % 10}", "1", b"item", LATER) for at in range(90)]:
            future.cancel()
        assert outbound.pending == 100, turn
        outbound._next_drop = 0.0  # else a busy machine, on which the last drop took long, waits
        kept.append(outbound.send("n0", "2", b"item", LATER))
        assert outbound.pending == len(kept)
        kept.pop().cancel()
        await asyncio.sleep(0.01)
        await answer_rest(commands)
        assert outbound.pending == 0
        kept = [outbound.broadcast(f"n{at}", b"item", LATER) for at in range(10)]
    await turns()
    await answer_rest(commands)


@async_test
async def test_a_send_beside_a_message_to_the_own_node_leaves_no_queue_behind() -> None:
    """The channel is not subscribed, so nothing comes back that would end the queue."""
    commands = FakeCommands()
    outbound = make_bus(commands)
    for at in range(50):
        outbound.send(f"n{at}", "1", b"item", LATER)
    await turns()
    (call,) = commands.flying
    call.future.set_result([b"1" * 50, b"7 1", b"", [], [], []])
    await turns()
    assert not outbound._queues


class Unwalked(dict[str, Any]):
    """A dict that allows look-ups, but no iteration."""

    def values(self) -> Any:
        raise AssertionError("walked through")

    __iter__ = items = values


@async_test
async def test_a_short_deadline_looks_only_at_waiting_queues() -> None:
    """Each namespace with a broadcast from here keeps a queue, and there may be many."""
    commands = FakeCommands()
    outbound = make_bus(commands)
    outbound._topology.home.listens = lambda channel: True
    for at in range(100):
        outbound.broadcast(f"n{at}", b"item", LATER)
    await turns()
    await answer_rest(commands)
    assert len(outbound._queues) == 100
    outbound._queues = Unwalked(outbound._queues)
    soon = asyncio.get_running_loop().time() + 0.01
    calls = [outbound.send("n1", "1", b"item", soon), outbound.send("other", "1", b"item", soon)]
    done, _ = await asyncio.wait(calls, timeout=5)
    assert len(done) == 2
    assert all(isinstance(call.exception(), BackplaneUnavailableError) for call in calls)
    await answer_rest(commands)
