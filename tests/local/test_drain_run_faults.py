"""A drain without a cluster: deadlines, and clients and transports that misbehave."""

import asyncio
import logging
import re
import time

import pytest

from cluster_pool import ConnectionsPool, Timing
from cluster_pool.local.closing import is_gone
from tests.drains import MuteWebSocket, UnreadWebSocket, gap_of, join, peak_of, times_of
from tests.support import async_test, eventually


@async_test
async def test_a_client_that_does_not_answer_is_cut_and_delays_no_other() -> None:
    """It has its own deadline; all others are closed long before."""
    async with ConnectionsPool(timing=Timing(close=1.5)) as pool:
        mute = await join(pool, 10, kind=MuteWebSocket, name="mute")
        fine = await join(pool, 40, name="fine")
        drain = asyncio.create_task(pool.drain_connections(500))
        await eventually(lambda: all(is_gone(socket.connection) for socket in fine))
        assert not any(is_gone(socket.connection) for socket in mute)
        report = await drain
        assert (report.closed, report.forced) == (50, 10)
        assert pool.statistics()["forced_closes"] == 10
        assert all(socket.connection._forced for socket in mute)
        assert 1.5 <= report.seconds < 4.5


@async_test
async def test_the_pace_goes_on_while_clients_do_not_answer() -> None:
    """Also when every other client is one of them."""
    async with ConnectionsPool(timing=Timing(close=0.5)) as pool:
        sockets = await join(pool, 30, kind=MuteWebSocket, name="mute") + await join(pool, 30)
        report = await pool.drain_connections(60)
        assert (report.closed, report.forced) == (60, 30)
        assert gap_of(times_of(sockets)) < 15 / 60


@async_test
async def test_a_client_that_does_not_read_is_cut_after_the_flush() -> None:
    """It is not given the time for a close handshake that cannot begin."""
    async with ConnectionsPool(timing=Timing(flush=0.4, close=50)) as pool:
        unread = await join(pool, 3, kind=UnreadWebSocket, name="unread")
        for socket in unread:
            await socket.connection.send("x")
        await asyncio.sleep(0)
        fine = await join(pool, 10)
        report = await pool.drain_connections(500)
        assert (report.closed, report.forced) == (13, 3)
        assert all(is_gone(socket.connection) for socket in [*unread, *fine])
        assert 0.4 <= report.seconds < 6


@async_test
async def test_a_close_that_fails_is_cut_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    """It is no member any more; the log names it; the others are closed as usual."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 20)
        bad = sockets[7].connection

        def fail(code: int, reason: str) -> None:
            raise RuntimeError("on purpose")

        bad._transport.close = fail  # type: ignore[method-assign]
        with caplog.at_level(logging.ERROR, "cluster_pool.drain"):
            report = await pool.drain_connections(500)
        assert (report.closed, report.forced) == (20, 1)
        assert pool.statistics()["drain_errors"] == 1
        assert pool.statistics()["connections"] == 0
        assert is_gone(bad)
        assert pool.get_connection("n", bad.id) is None
        (record,) = caplog.records
        assert repr(bad.id) in record.getMessage()


@async_test
async def test_a_message_that_cannot_be_written_does_not_end_the_drain() -> None:
    """A transport that raises at a write is cut; all others get the message."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 20)
        bad = sockets[7]

        def fail(outgoing: object) -> int:
            raise RuntimeError("on purpose")

        bad.connection._transport.write = fail  # type: ignore[method-assign]
        report = await pool.drain_connections(500, "bye")
        assert (report.closed, report.forced) == (20, 1)
        assert pool.statistics()["drain_errors"] == 1
        assert pool.statistics()["connections"] == 0
        assert all(socket.sent == ["bye"] for socket in sockets if socket is not bad)


@async_test
async def test_a_grace_raises_the_rate_evenly(caplog: pytest.LogCaptureFixture) -> None:
    """Everyone is closed before it ends, none by force, at one rate; the excess is reported."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 120)
        with caplog.at_level(logging.WARNING, "cluster_pool.drain"):
            report = await pool.drain_connections(20, grace=3)
        assert (report.closed, report.forced, report.over_budget) == (120, 0, True)
        assert report.seconds < 3
        assert pool.statistics()["drains_over_budget"] == 1
        (said,) = [record.getMessage() for record in caplog.records]
        needed = re.fullmatch(
            r"deadlines need (\d+) closes a second, over the budget of 20: they are kept", said
        )
        assert needed is not None, said
        assert 53 <= int(needed[1]) <= 80, "120 in 2.25 s; what the loop lost is caught up"
        times = times_of(sockets)
        mean = len(times) / (times[-1] - times[0])
        assert mean < 1.5 * 120 / 2.25, "it hurries more than it needs"
        assert peak_of(times, 0.5) < 1.6 * mean * 0.5, "it hurries at the end"


@async_test
async def test_a_long_grace_does_not_slow_it_down() -> None:
    """The rate is a permission: a late deadline does not lower it."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 50)
        report = await pool.drain_connections(100, grace=3600)
        assert not report.over_budget
        assert peak_of(times_of(sockets)) >= 40
        assert report.seconds < 15


@async_test
async def test_close_handshakes_end_within_the_grace() -> None:
    """Clients that do not answer are cut at the deadline, whatever ``Timing`` allows them."""
    async with ConnectionsPool(timing=Timing(close=50, flush=50)) as pool:
        mute = await join(pool, 20, kind=MuteWebSocket, name="mute")
        unread = await join(pool, 20, kind=UnreadWebSocket, name="unread")
        for socket in unread:
            await socket.connection.send("x")
        report = await pool.drain_connections(1000, grace=1.2)
        assert (report.closed, report.forced) == (40, 40)
        assert all(is_gone(socket.connection) for socket in [*mute, *unread])
        assert report.seconds < 3.6


@async_test
async def test_a_pause_does_not_move_the_deadline() -> None:
    """The connections left after a pause are closed faster."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 60)
        drain = asyncio.create_task(pool.drain_connections(20, grace=4))
        await eventually(lambda: len(times_of(sockets)) >= 5)
        await pool.pause_drain()
        await asyncio.sleep(1)
        assert len(times_of(sockets)) < 40
        await pool.resume_drain()
        report = await drain
        assert (report.closed, report.forced) == (60, 0)
        assert report.seconds < 4


@async_test
async def test_a_loop_that_stands_still_does_not_catch_up() -> None:
    """Closes missed meanwhile come later, at the pace."""
    async with ConnectionsPool() as pool:
        sockets = await join(pool, 100)
        drain = asyncio.create_task(pool.drain_connections(50))
        await eventually(lambda: len(times_of(sockets)) >= 10)
        asyncio.get_running_loop().call_soon(time.sleep, 1.0)
        await drain
        times = times_of(sockets)
        assert gap_of(times) >= 1.0
        assert peak_of(times, 0.1) <= 0.16 * 50 + 2
