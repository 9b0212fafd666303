"""Queues that pause."""

import asyncio
from collections.abc import Collection

from cluster_pool.backplane.batching import NamespaceQueue
from cluster_pool.backplane.pauses import PAUSE, Pauses
from tests.support import async_test


@async_test
async def test_a_queue_waits_until_all_its_pauses_are_over() -> None:
    """Two pauses may overlap; it counts as in flight until both have ended."""
    over: list[Collection[NamespaceQueue]] = []
    pauses = Pauses(over.append)
    queue = NamespaceQueue("channel", "members", "nodes:", None)
    pauses.begin([queue])
    await asyncio.sleep(PAUSE / 2)
    pauses.begin([queue])
    assert (queue.flying, list(pauses.queues)) == (2, [queue])
    await asyncio.sleep(PAUSE * 3)
    assert (queue.flying, list(pauses.queues)) == (0, [])
    assert over == [[queue], [queue]]
