"""Drains of several nodes that share one budget, and the states of a node that drains."""

import asyncio
from typing import Any

import pytest

from cluster_pool import (
    DrainRefusedError,
    InvalidValueError,
    NodeDrainingError,
    NodeState,
    PoolClosedError,
)
from cluster_pool.core.pacing import CREDIT
from tests.clusters import Backend, Pool
from tests.drains import TimedWebSocket, allowed, ended, join, peak_of, times_of
from tests.support import async_test, eventually


def begun(pool: Pool, *arguments: Any, **options: Any) -> "asyncio.Task[Any]":
    """A drain, as a task."""
    return asyncio.create_task(pool.drain_connections(*arguments, **options))


def drain_of(pool: Pool) -> dict[str, Any]:
    """The pool's own numbers of its drain; empty when there is none."""
    return pool.statistics()["drain"] or {}


def closes(sockets: list[TimedWebSocket], at_least: int) -> Any:
    """Wait until so many are closed."""
    return eventually(lambda: len(times_of(sockets)) >= at_least)


@async_test
async def test_several_drains_share_one_budget(backend: Backend) -> None:
    """Three nodes that name one rate close no more than that together, in any second."""
    async with backend.pools(4) as pools:
        sockets = []
        for pool, count in zip(pools[:3], (30, 60, 90), strict=True):
            sockets += await join(pool, count, name=pool.node_id)
        drains = [begun(pool, 120) for pool in pools[:3]]
        reports = [await ended(drain) for drain in drains]
        assert [report.closed for report in reports] == [30, 60, 90]
        assert not any(report.forced or report.over_budget for report in reports)
        times = times_of(sockets)
        assert len(times) == 180
        assert peak_of(times) <= allowed(120, 3)
        window = 0.02
        burst = (CREDIT + window) * 120 + 2 * 3  # what three pacers may catch up after a stall
        assert peak_of(times, window) <= burst, "they step together"


@async_test
async def test_the_smallest_rate_holds_for_all(backend: Backend) -> None:
    """Two drains with different rates: the lower one is the budget of both, while it lasts."""
    async with backend.pools(3) as (one, two, _):
        slow, fast = await join(one, 40, name="slow"), await join(two, 120, name="fast")
        first = begun(one, 60)
        await closes(slow, 1)
        second = begun(two, 600)
        assert (await ended(first)).closed == 40
        until = asyncio.get_running_loop().time()
        together = [time for time in times_of(slow + fast) if time <= until]
        assert peak_of(together) <= allowed(60, 2)
        await eventually(lambda: not drain_of(two) or drain_of(two)["rate"] == 600)
        assert (await ended(second)).closed == 120


@async_test
async def test_without_a_rate_the_budget_follows_the_headroom_of_other_nodes(
    backend: Backend,
) -> None:
    """70 % of the headroom of the nodes that take newcomers, without the drainer's own."""
    async with backend.pools(3, headroom=60) as (one, two, _):
        sockets = await join(one, 60)
        drain = begun(one)
        await closes(sockets, 1)
        assert drain_of(one)["budget"] == pytest.approx(0.7 * 120)
        second = begun(two, grace=3600)
        assert (await ended(second)).closed == 0
        await eventually(lambda: not drain_of(one) or drain_of(one)["budget"] < 0.7 * 120)
        assert (await ended(drain)).closed == 60
        assert peak_of(times_of(sockets)) <= allowed(0.7 * 120)


@async_test
async def test_the_cluster_can_set_a_budget(backend: Backend) -> None:
    """It holds for drains under way, below the rates that they name, until it is removed."""
    async with backend.pools() as (one, _), backend.publisher() as publisher:
        assert await publisher.drain_budget() is None
        for bad in (0, -1, float("nan"), float("inf"), "5", True):
            with pytest.raises(InvalidValueError):
                await publisher.set_drain_budget(bad)  # type: ignore[arg-type]
        await publisher.set_drain_budget(30)
        assert await one.drain_budget() == 30
        sockets = await join(one, 80)
        drain = begun(one, 1000)
        await closes(sockets, 20)
        assert drain_of(one)["budget"] == 30
        assert peak_of(times_of(sockets)) <= allowed(30)
        await one.set_drain_budget(None)
        assert (await ended(drain)).closed == 80
        assert await publisher.drain_budget() is None


@async_test
async def test_a_drain_is_refused_when_no_other_node_takes_newcomers(backend: Backend) -> None:
    """Nothing is closed and the state stays; ``force`` or a deadline starts it all the same."""
    async with backend.pools(1, headroom=200) as (one,):
        sockets = await join(one, 40)
        for rate in (None, 50):
            with pytest.raises(DrainRefusedError, match="no other live node takes newcomers"):
                await one.drain_connections(rate)
        assert one.state is NodeState.ACTIVE
        assert not times_of(sockets)
        await join(one, 1, name="new")
        report = await one.drain_connections(force=True)
        assert (report.closed, report.over_budget) == (41, False)
        assert peak_of(times_of(sockets), 0.02) <= 0.06 * 140 + 1
        await one.activate()
        await join(one, 20, name="again")
        report = await one.drain_connections(grace=1)
        assert (report.closed, report.forced) == (20, 0)
        assert report.seconds < 3


@async_test
async def test_a_drained_node_is_no_acceptor(backend: Backend) -> None:
    """While the only other node is drained, a drain of this one is refused."""
    async with backend.pools(2) as (one, two):
        await join(one, 10)
        await one.drain_connections(1000)
        with pytest.raises(DrainRefusedError):
            await two.drain_connections(1000)
        await one.activate()

        async def accepting() -> bool:
            return bool(await two._parts.drains.others_accepting())

        await eventually(accepting)
        assert (await two.drain_connections(1000)).closed == 0


@async_test
async def test_an_announcement_comes_first(backend: Backend) -> None:
    """The node is not ready at once, but takes newcomers; then it refuses them, and closes all."""
    async with backend.pools() as (one, two):
        states: list[NodeState] = []
        one.on("state", states.append)
        sockets = await join(one, 10)
        drain = begun(one, 200, announce=3.0, grace=30)
        await eventually(lambda: one.state is NodeState.ANNOUNCING)
        assert not one.ready
        sockets += await join(one, 10, name="late")
        await eventually(lambda: state_at(two, "node-1", NodeState.ANNOUNCING))
        assert not times_of(sockets)
        await eventually(lambda: one.state is not NodeState.ANNOUNCING)
        with pytest.raises(NodeDrainingError, match="node-1 is drain"):
            await join(one, 1, name="too late")
        report = await ended(drain)
        assert report.closed == 20
        assert report.seconds >= 3.0
        assert states == [NodeState.ANNOUNCING, NodeState.DRAINING, NodeState.DRAINED]
        for bad in (-1, float("nan"), float("inf"), 5, "1", True):
            with pytest.raises(InvalidValueError, match="announce must be"):
                await one.drain_connections(grace=5, announce=bad)  # type: ignore[arg-type]


async def state_at(pool: Pool, node: str, state: NodeState) -> bool:
    """Whether the cluster sees a node in a state."""
    return any(one.id == node and one.state is state for one in await pool.nodes())


@async_test
async def test_a_drain_is_visible_in_statistics_progress_and_nodes(backend: Backend) -> None:
    """The node's statistics, the progress of the cluster's drains, and the node's entry show it."""
    async with backend.pools() as (one, two):
        assert one.statistics()["drain"] is None
        assert await two.drains() == []
        await join(one, 50)
        drain = begun(one, 20, grace=3600)
        await eventually(lambda: drain_of(one).get("closed"))
        seen = drain_of(one)
        assert seen["closed"] + seen["remaining"] == 50
        assert (seen["rate"], seen["budget"], seen["paused"]) == (20, 20, False)
        assert 3500 < seen["seconds_left"] < 3600
        assert not seen["over_budget"]
        (progress,) = await two.drains()
        assert (progress.node, progress.state, progress.total) == ("node-1", "draining", 50)
        assert (progress.remaining, progress.rate) == (50, 20)
        assert progress.time_left is not None
        assert 3500 < progress.time_left < 3600
        await eventually(lambda: state_at(two, "node-1", NodeState.DRAINING))
        await one.pause_drain()
        await eventually(lambda: is_paused(two))
        await one.cancel_drain()
        assert (await ended(drain)).cancelled
        assert one.statistics()["drain"] is None
        await eventually(lambda: has_no_drains(two))
        await eventually(lambda: state_at(two, "node-1", NodeState.ACTIVE))


async def is_paused(pool: Pool) -> bool:
    """Whether the cluster has exactly one drain, and it is paused."""
    return [(one.state, one.rate) for one in await pool.drains()] == [("paused", 0)]


async def has_no_drains(pool: Pool) -> bool:
    """Whether no node holds a lease on the budget."""
    return await pool.drains() == []


@async_test
async def test_a_pause_leaves_the_budget_to_the_others(backend: Backend) -> None:
    """A paused drain keeps its lease with a rate of 0; resumed, it has its share again."""
    async with backend.pools(3) as (one, two, _):
        await join(one, 100, name="a")
        sockets = await join(two, 100, name="b")
        first, second = begun(one, 40), begun(two, 40)
        await eventually(lambda: drain_of(one).get("closed"))
        await one.pause_drain()
        await eventually(lambda: drain_of(two)["rate"] == 40)
        before = drain_of(one)["closed"]
        await closes(sockets, len(times_of(sockets)) + 10)
        assert drain_of(one)["closed"] <= before + 1
        await one.resume_drain()
        await eventually(lambda: 0 < drain_of(one)["rate"] < 40)
        for pool, drain in ((one, first), (two, second)):
            await pool.cancel_drain()
            assert (await ended(drain)).cancelled


@async_test
async def test_a_drained_node_is_kept_and_activated(backend: Backend) -> None:
    """It takes no newcomers until then, is reached all the same, and can be drained again."""
    async with backend.pools() as (one, two):
        await join(one, 10)
        assert (await one.drain_connections(1000)).closed == 10
        assert one.state is NodeState.DRAINED
        assert not one.ready
        with pytest.raises(NodeDrainingError, match="is drained"):
            await join(one, 1)
        assert await two.count("n") == 0
        await one.activate()
        assert one.ready
        await join(one, 5)
        assert await two.broadcast_message("n", "hi") == 1
        assert (await one.drain_connections(1000)).closed == 5


@async_test
async def test_cancelling_the_call_cancels_the_drain(backend: Backend) -> None:
    """The node is active again, its lease on the budget is released, its members stay."""
    async with backend.pools() as (one, two):
        for announce in (0.0, 20.0):
            sockets = await join(one, 30, name=f"{announce}")
            drain = begun(one, 30, announce=announce)
            await eventually(lambda: not one.ready)
            drain.cancel()
            with pytest.raises(asyncio.CancelledError):
                await drain
            assert one.ready
            assert len(times_of(sockets)) < 30
            await eventually(lambda: has_no_drains(two))


@pytest.mark.parametrize("announce", [0.0, 30.0])
@async_test
async def test_a_stop_ends_a_drain(backend: Backend, announce: float) -> None:
    """Members are closed with 1012, the caller gets its report, nothing stays in Redis."""
    async with backend.pools() as (one, two):
        sockets = await join(one, 30)
        drain = begun(one, 1, "bye", 4001, announce=announce)
        await eventually(lambda: not one.ready)
        await one.stop()
        assert (await ended(drain)).closed == 30
        assert {socket.closed for socket in sockets} == {(4001, "draining")}
        assert all(socket.sent == ["bye"] for socket in sockets)
        assert one.state is NodeState.STOPPED
        with pytest.raises(PoolClosedError):
            await one.drain_connections(5)
        await eventually(lambda: has_no_drains(two))
        assert await two.count("n") == 0


@async_test
async def test_a_claim_that_is_under_way_when_a_drain_begins_is_refused_or_closed(
    backend: Backend,
) -> None:
    """No member is left behind on the node."""
    async with backend.pools() as (one, two):
        claims = [asyncio.create_task(one.host("n", f"m{at}")) for at in range(200)]
        await eventually(one._parts.ownership.coming)
        report = await one.drain_connections(100_000)
        results = await asyncio.gather(*claims, return_exceptions=True)
        made = [result for result in results if not isinstance(result, BaseException)]
        assert {type(result) for result in results if result not in made} <= {NodeDrainingError}
        assert report.closed == len(made)
        assert all(socket.closed for socket in made)
        await eventually(lambda: one.statistics()["connections"] == 0)
        assert await two.count("n") == 0


@async_test
async def test_a_deadline_in_the_far_future_is_one(backend: Backend) -> None:
    """However large the number is, it is a grace, and the budget holds."""
    async with backend.pools() as (one, _):
        for number, grace in enumerate((1e12, 1.7e308)):
            sockets = await join(one, 20, name=f"{number}-")
            drain = begun(one, 60, grace=grace)
            await closes(sockets, 1)
            assert drain_of(one)["rate"] == 60
            assert (await ended(drain)).closed == 20
            await one.activate()
