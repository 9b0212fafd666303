"""Orders about drains that are not obeyed: impossible, unsigned, or nonsense."""

import asyncio
import gc
import logging
from typing import Any

import pytest

from cluster_pool import (
    DrainRefusedError,
    InvalidValueError,
    MessageTooLargeError,
    NodeState,
    NodeUnreachableError,
)
from cluster_pool.core import envelope
from tests.clusters import Backend
from tests.drains import join, times_of
from tests.support import async_test, eventually

SECRET = "known to all of the cluster"


@async_test
async def test_an_impossible_order_is_refused_with_the_reason(backend: Backend) -> None:
    """The caller gets the reason; the node does nothing."""
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
async def test_strangers_are_not_obeyed(backend: Backend) -> None:
    """An order without the secret is dropped and counted; its sender gets no answer."""
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
    """With any content of an order the node lives, closes no member, and obeys the next one."""
    gc.collect()  # tasks of earlier tests say so now
    caplog.clear()
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
            outbound = publisher._parts.backplane.outbound
            assert await outbound.send_to_node("node-1", "", told, deadline)

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
