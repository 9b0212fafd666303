"""Closing many connections at a pace, and waiting until they are closed."""

import asyncio
import random
from collections.abc import Sequence

from cluster_pool.core.ids import shown
from cluster_pool.core.message import Outgoing
from cluster_pool.core.pacing import STEP, Pacer, PeakRate
from cluster_pool.core.results import DrainReport
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.local.connection import Connection

DEFAULT_RATE = 200.0
"""Closes per second when nobody says."""


def check_rate(rate: object) -> float:
    """``rate`` as closes per second, DEFAULT_RATE for None; raises InvalidValueError."""
    if rate is None:
        return DEFAULT_RATE
    if not isinstance(rate, int | float) or isinstance(rate, bool) or not 0 < rate < float("inf"):
        raise InvalidValueError(f"max_per_second must be a number above 0, not {shown(rate)}")
    return float(rate)


async def drain(
    connections: Sequence[Connection], rate: float, message: Outgoing | None, code: int
) -> DrainReport:
    """Close these connections at ``rate`` per second, in random order.

    Each gets the message first, if there is one. A client that does not answer its close holds up
    nobody: it is cut at its own deadline, by the sweep. Ends when all of them are closed.
    """
    loop = asyncio.get_running_loop()
    began = loop.time()
    order = list(connections)
    random.shuffle(order)
    pacer, peak = Pacer(rate, began), PeakRate()
    forced_before = order[0].host.counters.forced_closes if order else 0
    closing: list[Connection] = []
    while order:
        await asyncio.sleep(STEP)
        for _ in range(min(pacer.due(loop.time()), len(order))):
            connection = order.pop()
            if connection.closed:
                continue
            if message is not None:
                connection.deliver(message)
            connection.begin_close(code, "draining")
            peak.note(loop.time())
            closing.append(connection)
    for connection in closing:
        while not connection.gone:
            await asyncio.sleep(STEP)
            connection.sweep(loop.time())
    forced = closing[0].host.counters.forced_closes - forced_before if closing else 0
    return DrainReport(len(closing), forced, loop.time() - began, peak.peak)
