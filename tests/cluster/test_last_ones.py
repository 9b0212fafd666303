"""Which release was the last one, where Redis may lack members for a while."""

import asyncio
from types import SimpleNamespace
from typing import Any

from cluster_pool import BackplaneUnavailableError, Timing
from cluster_pool.cluster.last_ones import LastOnes
from cluster_pool.local.membership import Departure
from tests.support import async_test, eventually


class Redis:
    """Lacks members for so many seconds; then each namespace has so many, or an error first."""

    def __init__(self, seconds: float, **sizes: int) -> None:
        until = asyncio.get_running_loop().time() + seconds
        self._succession = SimpleNamespace(unsure_until=until)
        self._sizes = sizes
        self.errors = 0

    def of(self, namespace: str) -> Any:
        return SimpleNamespace(succession=self._succession)

    async def is_empty(self, namespace: str, deadline: float) -> bool:
        if self.errors:
            self.errors -= 1
            raise BackplaneUnavailableError("away")
        return not self._sizes[namespace]


def last_ones_of(redis: Any) -> LastOnes:
    return LastOnes(redis, redis, Timing(probe=0.01))


@async_test
async def test_the_word_of_a_redis_that_has_everything_counts_at_once() -> None:
    """A claim that was not registered was released before, or taken over."""
    last_ones = last_ones_of(Redis(-1))
    for emptied in (True, False, None):
        departure = Departure("hall")
        last_ones.end(departure, emptied)
        assert departure.undecided is None
        assert departure.pop_emptied() is bool(emptied)
    await last_ones.stop()


@async_test
async def test_a_namespace_that_looks_empty_is_looked_at_again_later() -> None:
    """The latest of its releases was the last one, if it is still empty; errors only delay that."""
    redis = Redis(0.05, hall=0, room=3)
    redis.errors = 2
    last_ones = last_ones_of(redis)
    earlier, later, other = Departure("hall"), Departure("hall"), Departure("room")
    for departure, emptied in ((earlier, True), (later, None), (other, True)):
        last_ones.end(departure, emptied)
        assert departure.over.done()
    assert earlier.undecided is None
    assert not earlier.pop_emptied()
    assert later.undecided is not None
    await eventually(lambda: later.undecided is None and other.undecided is None)
    assert later.pop_emptied()
    assert not other.pop_emptied()
    await last_ones.stop()


@async_test
async def test_nothing_in_doubt_was_the_last_one_when_the_node_stops() -> None:
    """It will not know any more."""
    last_ones = last_ones_of(Redis(60, hall=0))
    departure = Departure("hall")
    last_ones.end(departure, True)
    await last_ones.stop()
    assert departure.undecided is None
    assert not departure.pop_emptied()
