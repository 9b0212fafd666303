"""A publisher in a thread of its own, and the calls of other threads that wait for it."""

import asyncio
import threading

import pytest

from cluster_pool import BackplaneUnavailableError, PoolClosedError, Publisher
from cluster_pool.cluster.background import Background


async def _sleep(publisher: Publisher, seconds: float, *, timeout: float) -> float:
    await asyncio.sleep(min(seconds, timeout))
    return seconds


def test_a_call_ends_at_its_deadline_and_the_stop_ends_all() -> None:
    """Without Redis a call says so in time; after the stop nothing of the thread is left."""
    background = Background(Publisher("redis://127.0.0.1:1"))
    with pytest.raises(BackplaneUnavailableError):
        background.call(_sleep, (0.0,), {}, 0.5)
    assert background._thread in threading.enumerate()
    background.stop(1.0)
    assert background._thread not in threading.enumerate()
    with pytest.raises(PoolClosedError):
        background.call(_sleep, (0.0,), {}, 0.5)
