"""The drain of a pool's own node, as its user begins, joins, and orders it."""

import asyncio
import logging
import threading

import pytest

from cluster_pool import (
    ClusterPool,
    DrainRefusedError,
    NodeState,
)
from cluster_pool.cluster.public import drains
from cluster_pool.testing import FAST
from tests.clusters import Backend
from tests.drains import allowed, ended, join, peak_of, times_of
from tests.support import async_test, eventually


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


def test_a_pool_outside_the_main_thread_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    """Starlette's TestClient, a server in a thread: the application runs, without signals."""
    drains._warn_no_signals.cache_clear()
    backend = Backend(None)

    async def live() -> None:
        async with ClusterPool(backend.redis(), timing=FAST) as pool, pool.drain_on_signal():
            pass

    for _ in range(3):
        with caplog.at_level(logging.WARNING):
            thread = threading.Thread(target=lambda: asyncio.run(live()))
            thread.start()
            thread.join()
    assert [text for text in caplog.messages if "main thread" in text] == [
        "drain_on_signal is not in the main thread: signals do not drain this node"
    ]


@async_test
async def test_draining_twice(backend: Backend) -> None:
    """The second call joins and gets the same report; on a drained node there is nothing to do."""
    async with backend.pools() as (one, _):
        sockets = await join(one, 60)
        first = asyncio.create_task(one.drain_connections(1, announce=30))
        await eventually(lambda: one.state is NodeState.ANNOUNCING)
        report = await one.drain_connections(100)
        assert await ended(first) is report
        assert report.closed == 60
        assert peak_of(times_of(sockets), 0.1) <= allowed(100 * 0.16)
        assert one.state is NodeState.DRAINED
        again = await one.drain_connections(100)
        assert (again.closed, again.cancelled) == (0, False)
