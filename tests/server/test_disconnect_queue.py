"""Departed clients are handled in order, for a few milliseconds in each turn of the loop."""

import asyncio
import time
from functools import partial

from cluster_pool.server.disconnect_queue import TURN, DisconnectQueue
from tests.support import async_test, eventually


@async_test
async def test_queued_ends_run_in_order_and_yield_to_the_loop() -> None:
    """Ten of half a turn each need five turns, in which the rest of the loop goes on."""
    departures, done, turns = DisconnectQueue(), list[int](), 0

    def work(number: int) -> None:
        time.sleep(TURN / 2)
        done.append(number)

    for number in range(10):
        departures.add(partial(work, number))
    assert not done
    while len(done) < 10:
        await asyncio.sleep(0)
        turns += 1
    assert done == list(range(10))
    assert turns >= 5


@async_test
async def test_an_end_that_raises_does_not_stop_the_others() -> None:
    """Its error goes to the loop's exception handler."""
    departures, done, errors = DisconnectQueue(), list[str](), list[object]()
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: errors.append(context["exception"])
    )

    def fail() -> None:
        raise ValueError("of one")

    departures.add(fail)
    departures.add(lambda: done.append("the next"))
    await eventually(lambda: done == ["the next"])
    assert [str(error) for error in errors] == ["of one"]
