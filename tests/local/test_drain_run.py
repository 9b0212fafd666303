"""A drain without a cluster: the pace, joined calls, and orders while it runs."""

import asyncio
from itertools import pairwise

import pytest

from cluster_pool import (
    Connection,
    ConnectionsPool,
    InvalidCloseError,
    InvalidMessageError,
    InvalidValueError,
    NodeDrainingError,
)
from cluster_pool.core.pacing import CREDIT
from cluster_pool.local.closing import is_gone
from cluster_pool.testing import FakeWebSocket
from tests.drains import allowed, ended, join, peak_of, times_of
from tests.support import async_test, eventually


@async_test
async def test_the_pace_is_kept_and_awaited() -> None:
    """The rate is never exceeded, there are no bursts, and the call returns when all are closed."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 60)
        report = await pool.drain_connections(40)
        assert all(is_gone(socket.connection) for socket in sockets)
        assert {socket.closed for socket in sockets} == {(1012, "draining")}
        assert (report.closed, report.forced) == (60, 0)
        assert (report.cancelled, report.over_budget) == (False, False)
        times = times_of(sockets)
        assert peak_of(times) <= allowed(40)
        assert abs(report.peak_rate - peak_of(times)) <= 2
        assert peak_of(times, 0.02) <= (CREDIT + 0.02) * 40 + 2, "a batch was closed at once"
        assert times[-1] - times[0] > 0.9 * 59 / 40
        assert report.seconds >= times[-1] - times[0]
        assert pool.statistics()["drained"] == 60
        assert pool.statistics()["connections"] == 0


@async_test
async def test_closes_start_at_once_and_go_on_steadily() -> None:
    """There are no batches: a close follows the one before it, but after a stall of the machine."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 50)
        await pool.drain_connections(50)
        times = times_of(sockets)
        assert sum(later - earlier > 0.5 / 50 for earlier, later in pairwise(times)) > 30


@async_test
async def test_a_drain_of_an_empty_pool_ends_at_once() -> None:
    """It does not wait."""
    async with ConnectionsPool() as pool:
        report = await pool.drain_connections(0.001)
        assert report.closed == 0
        await join(pool, 1)


@async_test
async def test_without_a_rate_a_default_is_used() -> None:
    """It is 200 a second for a process that knows no other nodes."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 100)
        await pool.drain_connections()
        times = times_of(sockets)
        assert times[-1] - times[0] > 0.9 * 99 / 200 - 0.06


@async_test
async def test_each_close_flushes_the_outbox_first() -> None:
    """Sent messages arrive before the drain's own message, and that before the close."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 20)
        for socket in sockets:
            await socket.connection.send("before")
        drain = asyncio.create_task(pool.drain_connections(200, "come back", 4001))
        await eventually(lambda: any(socket.closed for socket in sockets))
        still_open = [socket for socket in sockets if not socket.closed]
        for socket in still_open:
            await socket.connection.send("meanwhile")
        await ended(drain)
        for socket in sockets:
            meanwhile = ["meanwhile"] if socket in still_open else []
            assert socket.sent == ["before", *meanwhile, "come back"]
            assert socket.closed == (4001, "draining")


@async_test
async def test_idle_connections_are_closed_first() -> None:
    """One whose handler runs is closed after all others."""
    async with ConnectionsPool() as pool:
        busy = await join(pool, 10, name="busy")
        idle = await join(pool, 30, name="idle")
        hold = asyncio.Event()
        for socket in busy:
            socket.connection.on("message", lambda message: hold.wait())
        feeds = [asyncio.create_task(socket.connection.feed("x")) for socket in busy]
        await asyncio.sleep(0)
        await pool.drain_connections(200)
        assert times_of(idle)[-1] <= times_of(busy)[0]
        hold.set()
        await asyncio.gather(*feeds)


@async_test
async def test_all_namespaces_shrink_together() -> None:
    """Half-way through, each has lost about a half."""
    async with ConnectionsPool() as pool:
        by_name = {name: await join(pool, size, name) for name, size in (("a", 80), ("b", 20))}
        await pool.drain_connections(500)
        times = times_of([*by_name["a"], *by_name["b"]])
        half = times[len(times) // 2]
        for sockets in by_name.values():
            early = sum(socket.closed_at <= half for socket in sockets)
            assert 0.3 < early / len(sockets) < 0.7


@async_test
async def test_newcomers_are_refused_during_a_drain() -> None:
    """They are told to go elsewhere, and accepted again when it is over."""
    async with ConnectionsPool() as pool:
        await join(pool, 10)
        drain = asyncio.create_task(pool.drain_connections(50))
        await eventually(lambda: pool.statistics()["drained"])
        with pytest.raises(NodeDrainingError):
            await pool.new_connection(Connection("new", "n", FakeWebSocket()))
        assert (await ended(drain)).closed == 10
        await pool.new_connection(Connection("new", "n", FakeWebSocket()))


@async_test
async def test_a_pause_closes_no_connection() -> None:
    """Connections stay open until it is resumed; then the pace is as before, without a burst."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 60)
        drain = asyncio.create_task(pool.drain_connections(50))
        await eventually(lambda: len(times_of(sockets)) >= 5)
        await pool.pause_drain()
        await asyncio.sleep(0.1)  # a step that had begun
        before = len(times_of(sockets))
        await asyncio.sleep(0.5)
        assert len(times_of(sockets)) == before
        with pytest.raises(NodeDrainingError):
            await pool.new_connection(Connection("new", "n", FakeWebSocket()))
        await pool.resume_drain()
        report = await ended(drain)
        assert (report.closed, report.cancelled) == (60, False)
        assert peak_of(times_of(sockets), 0.1) <= allowed(0.1 * 50) + 0.06 * 50


@async_test
async def test_a_cancelled_drain_keeps_the_rest() -> None:
    """The report says so; the rest gets messages, newcomers are accepted, it can begin again."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 50)
        drain = asyncio.create_task(pool.drain_connections(50))
        await eventually(lambda: len(times_of(sockets)) >= 5)
        await pool.cancel_drain()
        report = await ended(drain)
        assert report.cancelled
        rest = [socket for socket in sockets if not socket.closed]
        assert report.closed == 50 - len(rest)
        assert rest
        assert await pool.broadcast_message("n", "still here") == len(rest)
        await join(pool, 1, name="new")
        again = await pool.drain_connections(1000)
        assert (again.closed, again.cancelled) == (len(rest) + 1, False)


@async_test
async def test_a_paused_drain_can_be_cancelled() -> None:
    """It need not be resumed first."""
    async with ConnectionsPool() as pool:
        await join(pool, 50)
        drain = asyncio.create_task(pool.drain_connections(20))
        await eventually(lambda: pool.statistics()["drained"])
        await pool.pause_drain()
        await pool.cancel_drain()
        assert (await ended(drain)).cancelled
        assert pool.statistics()["connections"] > 0


@async_test
async def test_cancelling_the_call_cancels_the_drain() -> None:
    """No connection is closed after the caller has given up."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 50)
        drain = asyncio.create_task(pool.drain_connections(50))
        await eventually(lambda: len(times_of(sockets)) >= 3)
        drain.cancel()
        with pytest.raises(asyncio.CancelledError):
            await drain
        before = len(times_of(sockets))
        await asyncio.sleep(0.2)
        assert len(times_of(sockets)) == before < 50
        await join(pool, 1, name="new")


@async_test
async def test_a_second_drain_joins_the_first() -> None:
    """Its rate and its earlier deadline hold from then on, and both get the same report."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 60)
        first = asyncio.create_task(pool.drain_connections(1, grace=500))
        await eventually(lambda: pool.statistics()["drained"])
        second = asyncio.create_task(pool.drain_connections(100))
        reports = await asyncio.gather(ended(first), ended(second))
        assert reports[0] is reports[1]
        assert reports[0].closed == 60
        assert peak_of(times_of(sockets)) <= allowed(100)

        sockets = await join(pool, 40, name="again")
        first = asyncio.create_task(pool.drain_connections(0.1))
        await eventually(lambda: pool._drain is not None)
        began = asyncio.get_running_loop().time()
        assert (await pool.drain_connections(grace=2)).closed == 40
        assert (await ended(first)).over_budget
        assert times_of(sockets)[-1] - began < 2


@async_test
async def test_a_second_drain_resumes_a_paused_one_and_a_later_deadline_changes_nothing() -> None:
    """A second call means that the drain shall go on; the earlier deadline is kept."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 40)
        began = asyncio.get_running_loop().time()
        first = asyncio.create_task(pool.drain_connections(20, grace=3))
        await eventually(lambda: pool.statistics()["drained"])
        await pool.pause_drain()
        assert (await pool.drain_connections(grace=3600)).closed == 40
        assert (await ended(first)).closed == 40
        assert times_of(sockets)[-1] - began < 3


@async_test
async def test_cancelling_a_joined_call_leaves_the_drain_alone() -> None:
    """It belongs to the first caller."""
    async with ConnectionsPool() as pool:
        await join(pool, 30)
        first = asyncio.create_task(pool.drain_connections(50))
        await eventually(lambda: pool.statistics()["drained"])
        second = asyncio.create_task(pool.drain_connections())
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert (await ended(first)).closed == 30


@async_test
async def test_leaving_the_pool_closes_the_rest_at_once() -> None:
    """The end of ``async with`` does not wait for the pace."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 50)
        drain = asyncio.create_task(pool.drain_connections(1))
        await eventually(lambda: pool.statistics()["drained"])
    assert all(is_gone(socket.connection) for socket in sockets)
    await ended(drain)


@async_test
async def test_bad_arguments_close_no_connection() -> None:
    """A rate or a grace that is no number above 0, a bad code or message: refused at once."""
    async with ConnectionsPool() as pool:
        (socket,) = await join(pool, 1)
        for bad in (0, -1, float("nan"), float("inf"), "5", True, [1]):
            with pytest.raises(InvalidValueError, match="max_per_second must be a number above 0"):
                await pool.drain_connections(bad)  # type: ignore[arg-type]
            with pytest.raises(InvalidValueError, match="grace must be a number above 0"):
                await pool.drain_connections(5, grace=bad)  # type: ignore[arg-type]
        with pytest.raises(InvalidCloseError):
            await pool.drain_connections(5, code=1006)
        with pytest.raises(InvalidMessageError):
            await pool.drain_connections(5, 7)  # type: ignore[arg-type]
        assert socket.closed is None
        assert pool.statistics()["drained"] == 0
        await join(pool, 1, name="new")
