"""Orders about drains from other nodes and from publishers, signed, unsigned, and nonsense."""

import asyncio
import gc
import logging
from typing import Any

import pytest

from cluster_pool import (
    ClusterPool,
    DrainRefusedError,
    InvalidIdError,
    InvalidValueError,
    MessageTooLargeError,
    NodeState,
    NodeUnreachableError,
    Publisher,
)
from cluster_pool.core import envelope
from tests.clusters import Backend
from tests.drains import join, times_of
from tests.support import async_test, eventually

SECRET = "known to all of the cluster"


@pytest.mark.parametrize("secret", [None, SECRET], ids=["open", "sealed"])
@pytest.mark.parametrize("teller", ["pool", "publisher"])
@async_test
async def test_orders_are_obeyed(backend: Backend, secret: str | None, teller: str) -> None:
    """Drain, pause, resume, cancel, drain again, activate: the node does it and says so."""
    async with (
        backend.pools(secret=secret) as (one, two),
        backend.publisher(secret=secret) as publisher,
    ):
        says: ClusterPool | Publisher = two if teller == "pool" else publisher
        sockets = await join(one, 40)
        await says.drain_node("node-1", 50, "bye", 4001, announce=0)
        await eventually(lambda: len(times_of(sockets)) >= 2)
        await says.pause_drain("node-1")
        assert one.statistics()["drain"]["paused"]
        await says.resume_drain("node-1")
        assert not one.statistics()["drain"]["paused"]
        await says.cancel_drain("node-1")
        await eventually(lambda: one.state is NodeState.ACTIVE)
        assert len(times_of(sockets)) < 40
        await says.drain_node("node-1", 1000, "bye", 4001, grace=60, announce=30)
        await eventually(lambda: one.state is NodeState.ANNOUNCING)
        await says.drain_node("node-1", announce=0)
        await eventually(lambda: one.state is NodeState.DRAINED)
        assert {socket.closed for socket in sockets} == {(4001, "draining")}
        assert all(socket.sent == ["bye"] for socket in sockets)
        await says.activate("node-1")
        assert one.ready
        await says.activate("node-1")


@async_test
async def test_what_cannot_be_done_is_refused_with_the_reason(backend: Backend) -> None:
    """Who asks hears why; nothing happens to the node."""
    async with backend.pools(2) as (one, two), backend.publisher() as publisher:
        await join(one, 5)
        for order in (publisher.pause_drain, publisher.resume_drain, publisher.cancel_drain):
            with pytest.raises(DrainRefusedError, match="it is active: nothing to") as caught:
                await order("node-1")
            assert caught.value.reason == "it is active: nothing to " + order.__name__.split("_")[0]
        for options, reason in (
            ({"max_per_second": 0}, "max_per_second must be a number above 0"),
            ({"max_per_second": "7"}, "max_per_second must be a number above 0"),
            ({"grace": -1}, "grace must be a number above 0"),
            ({"grace": 5, "announce": 5}, "announce must be a number from 0 up to the grace"),
            ({"code": 1006}, "1006 is not allowed"),
            ({"message": 7}, "message"),
        ):
            with pytest.raises(DrainRefusedError, match=reason):
                await publisher.drain_node("node-1", **options)  # type: ignore[arg-type]
        for unsendable in ({"grace": 2**70}, {"message": {1}}, {"message": "\ud800"}):
            with pytest.raises(InvalidValueError, match="no form to be sent in"):
                await publisher.drain_node("node-1", **unsendable)  # type: ignore[arg-type]
        with pytest.raises(MessageTooLargeError):  # a huge one costs that node its link
            await publisher.drain_node("node-1", message="x" * 2**21)
        await two.drain_connections(1000)
        with pytest.raises(DrainRefusedError, match="no other live node takes newcomers"):
            await publisher.drain_node("node-1", 5)
        assert one.state is NodeState.ACTIVE
        await publisher.drain_node("node-1", 1000, announce=0, force=True)
        await eventually(lambda: one.state is NodeState.DRAINED)


@async_test
async def test_a_node_that_is_not_there(backend: Backend) -> None:
    """Nobody listens under its id: that is said at once, to pools and publishers."""
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        for says in (one, publisher):
            with pytest.raises(NodeUnreachableError, match="nobody listens"):
                await says.drain_node("elsewhere", 5)
            with pytest.raises(NodeUnreachableError):
                await says.activate("elsewhere")
            with pytest.raises(InvalidIdError):
                await says.drain_node("", 5)


@async_test
async def test_orders_to_oneself_need_no_redis(backend: Backend) -> None:
    """A pool pauses, resumes, cancels and activates its own drain, by its id or without."""
    async with backend.pools() as (one, _):
        await join(one, 30)
        drain = asyncio.create_task(one.drain_connections(30))
        await eventually(lambda: one.statistics()["drained"])
        one._parts.backplane.outbound.tell = None  # type: ignore[assignment, method-assign]  # nothing may be said to anybody
        await one.pause_drain()
        assert one.statistics()["drain"]["paused"]
        await one.resume_drain("node-1")
        await one.cancel_drain()
        assert (await drain).cancelled
        await one.activate()
        with pytest.raises(DrainRefusedError, match="nothing to pause"):
            await one.pause_drain()
        await one.drain_node("node-1", 1000, announce=0)
        await eventually(lambda: one.state is NodeState.DRAINED)
        await one.activate("node-1")
        del one._parts.backplane.outbound.tell


@async_test
async def test_strangers_are_not_obeyed(backend: Backend) -> None:
    """Without the secret an order is dropped and counted; whoever gave it hears nothing."""
    async with (
        backend.pools(secret=SECRET) as (one, _),
        backend.publisher() as unsigned,
        backend.publisher(secret="quite another secret") as other,
    ):
        sockets = await join(one, 5)
        for forged, stranger in enumerate((unsigned, other), 1):
            with pytest.raises(NodeUnreachableError, match="did not answer in time"):
                await stranger.drain_node("node-1", 1000, announce=0, timeout=0.3)
            assert one.statistics()["dropped_forged"] == forged
        assert one.state is NodeState.ACTIVE
        assert not times_of(sockets)


GOOD = {
    "max_per_second": 5,
    "message": "",
    "code": 1012,
    "grace": None,
    "announce": 0,
    "force": True,
}
BAD: dict[str, list[Any]] = {
    "max_per_second": [True, -1, 0, float("nan"), float("inf"), "x", b"\xff", [], [[]]],
    "message": [7, [1], 1.5, True],
    "code": [None, True, -1, 1006, 1e308, "x", [], "é" * 999, 1 << 63],
    "grace": [True, -1, 0, float("nan"), "x", [1]],
    "announce": [True, -1, float("nan"), float("inf"), "x", b"", []],
}
VERBS: list[Any] = ["", "DRAIN", "_obey", "stop", None, 7, b"drain", [], ["drain"]]


def nonsense() -> list[tuple[Any, Any]]:
    """Orders as no node of ours writes them: verb and options."""
    told: list[tuple[Any, Any]] = [(verb, flat(GOOD)) for verb in VERBS]
    for name in GOOD:
        told.append(("drain", flat({key: value for key, value in GOOD.items() if key != name})))
        told += [("drain", flat({**GOOD, name: value})) for value in BAD.get(name, ())]
    told += [("drain", flat({**GOOD, name: 1})) for name in ("other", "verb", "self")]
    told += [(verb, ["x"]) for verb in ("drain", "pause")]
    told += [("pause", options) for options in ([7, 7], [[], 1], [None, 1], "text", None)]
    return told


def flat(options: dict[str, Any]) -> list[Any]:
    """Options as they travel."""
    return [part for pair in options.items() for part in pair]


@async_test
async def test_nonsense_is_answered_or_dropped(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever is in an order, the node lives, closes nobody, and obeys the next one."""
    async with backend.pools() as (one, _), backend.publisher() as publisher:
        sockets = await join(one, 5)
        deadline = asyncio.get_running_loop().time() + 20
        to = (
            publisher._parts.backplane.identity.node_id,
            7,
            publisher._parts.backplane.identity.start,
        )

        async def tell(*item: Any) -> None:
            told = envelope.pack((envelope.COMMAND, *item))
            assert await publisher._parts.backplane.outbound.tell("node-1", "", told, deadline)

        for verb, options in nonsense():
            await tell(verb, options, to)
        for back in (
            None,
            7,
            [],
            "x",
            [7, 7],
            [None, None],
            ["node", "x"],
            ["a", 1],
            ["", 1, "s"],
            ["a"] * 3,
        ):
            await tell("pause", [], back)
        await tell()
        await tell("pause")
        with caplog.at_level(logging.ERROR):
            with pytest.raises(DrainRefusedError, match="nothing to pause"):
                await publisher.pause_drain("node-1")
            await eventually(lambda: not one._parts.drains._orders)
            gc.collect()  # a task whose exception nobody has seen says so now
        assert one.state is NodeState.ACTIVE
        assert not times_of(sockets)
        assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
        await publisher.drain_node("node-1", 1000, announce=0)
        await eventually(lambda: one.state is NodeState.DRAINED)
        assert len(times_of(sockets)) == 5
