"""Shared timers of pings."""

import asyncio

from cluster_pool.transports.rounds import PINGS_PER_INTERVAL, Round
from tests.support import async_test, eventually

INTERVAL = 0.1


class Pinged:
    """A WebSocket that notes when it is told to send a ping."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.at: list[float] = []

    def send_keepalive_ping(self) -> None:
        self.at.append(self.loop.time())


@async_test
async def test_pings_that_are_due_together_share_a_timer_and_none_is_early() -> None:
    """A WebSocket that has left its round is asked no more."""
    loop, first, second, left = asyncio.get_running_loop(), Pinged(), Pinged(), Pinged()
    due = loop.time() + INTERVAL
    rounds = [Round.after(loop, INTERVAL, INTERVAL) for _ in range(3)]
    for one, pinged in zip(rounds, (first, second, left), strict=True):
        one.add(pinged)
        one.cancel()
    rounds[2].discard(left)
    assert len(set(map(id, rounds))) <= 2  # one has begun in between, at most
    later = Round.after(loop, INTERVAL + 2 * INTERVAL / PINGS_PER_INTERVAL, INTERVAL)
    assert later is not rounds[0]
    await eventually(lambda: first.at and second.at)
    assert min(first.at[0], second.at[0]) >= due
    await asyncio.sleep(0.01)
    assert left.at == []
