"""The parts of a publisher while it runs, without a publisher around them."""

import asyncio

import pytest

from cluster_pool import PoolClosedError, SendResult, Timing
from cluster_pool.backplane.backplane import Setup
from cluster_pool.cluster.publishing import Publishing
from cluster_pool.cluster.watchers import Watch
from cluster_pool.core.statistics import Counters
from tests.clusters import Backend
from tests.support import async_test


@async_test
async def test_calls_that_wait_when_it_stops_fail() -> None:
    """It works without a dispatcher: it has no connections, and obeys no orders."""
    backend = Backend(None)
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        setup = Setup.of(
            backend.redis(), prefix=backend.prefix, limits=None, timing=Timing(), secret=None
        )
        parts = Publishing(setup)
        await parts.start(None)
        future = asyncio.get_running_loop().create_future()
        sent = parts.sending.send("n", "alice", "x", None, True, None, future)
        assert await sent is SendResult.DELIVERED
        assert await parts.directory.count("n", None) == 1
        assert await alice.wait_sent() == ["x"]
        _, word = parts.replies.expect()
        events = Watch(Counters())
        parts.watchers.add("channel", events)
        waiting = asyncio.create_task(events.get())
        await parts.stop()
        for call in (word, waiting):
            with pytest.raises(PoolClosedError):
                await call
        assert parts.over
