"""Clients that never read: what they cost the others, and a SIGTERM.

The others' latency is taken while the crowd gets broadcasts, in turns with a crowd that reads and
one that does not; the machine's mood then meets both alike.
"""

import asyncio
import contextlib
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from cluster_pool import Publisher, SendResult
from tools.chaos.targets.members import clients, until_async
from tools.chaos.targets.rows import Row
from tools.harness import crowd
from tools.harness.nodes import NodeProcess, in_thread
from tools.harness.programs import Program, program
from tools.harness.servers import RedisServer

CROWD, OTHERS = "crowd", "others"
PEOPLE = 20
MESSAGE = "x" * 4096
PAUSE = 0.2
"""Seconds between two broadcasts to the crowd."""
AHEAD = 40
"""Broadcasts that fill the kernel's buffers of those who do not read."""
OUTBOX, GRACE, STOPPED, SLOWER = 65536, 15.0, 20.0, 10.0


async def measure(*, stuck: int, turns: int, pings: int, tell: Callable[[str], None]) -> list[Row]:
    """Latency of confirmed sends to others, in turns; then how long a stop takes."""
    tell(f"{stuck:,} clients that never read, in {turns} turns with as many that do; a SIGTERM")
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        options = ("--outbox-bytes", str(OUTBOX), "--grace", f"{GRACE:g}", "--log-level", "error")
        node = stack.enter_context(NodeProcess(redis.url, "--node-id", "one", *options))
        publisher = await stack.enter_async_context(Publisher(redis.url))
        people = await clients(node, OTHERS, [f"p{at}" for at in range(PEOPLE)])
        listening = [asyncio.create_task(_read(one)) for one in people]
        good, bad, wrong = [], [], []
        for _ in range(turns):
            async with _crowd(node, stuck, crowd.READING):
                good.append(await _p99(publisher, pings))
            await until_async(lambda: _empty(publisher))
            async with _crowd(node, stuck, crowd.STUCK):
                bad.append(await _p99(publisher, pings))
                await _fill(publisher)
        async with _crowd(node, stuck, crowd.STUCK):
            await _broadcast(publisher, AHEAD)
            stopped, faults = await _stop(node, publisher)
        wrong += faults
        await asyncio.gather(*listening)
    return _rows(stuck, good, bad, stopped, wrong)


def _rows(
    stuck: int, good: list[float], bad: list[float], stopped: float, wrong: list[str]
) -> list[Row]:
    which, p99 = f"{stuck:,} clients that", "p99 of a confirmed send to others"
    more = (statistics.median(bad) / statistics.median(good) - 1) * 100
    return [
        Row(f"{which} read", p99, good, unit="ms"),
        Row(f"{which} never read", p99, bad, unit="ms"),
        Row(f"{which} never read", "the median p99 is up by", [more], SLOWER, unit="%"),
        Row(f"{which} never read, SIGTERM", "until it has left", [stopped], STOPPED, wrong=wrong),
    ]


def _crowd(
    node: NodeProcess, count: int, manner: str
) -> contextlib.AbstractAsyncContextManager[Program]:
    """So many clients in a process of their own."""
    return program("tools.harness.crowd", str(node.port), f"/ws/{CROWD}", str(count), manner)


async def _read(client: ClientConnection) -> None:
    with contextlib.suppress(ConnectionClosed):
        async for _ in client:
            pass


async def _p99(publisher: Publisher, pings: int) -> float:
    """Of sends to the others in ms, while the crowd is broadcast to."""
    await _broadcast(publisher, AHEAD)
    async with _broadcasting(publisher):
        taken = [await _ping(publisher, f"p{at % PEOPLE}") for at in range(pings)]
    return statistics.quantiles(taken, n=100)[98] * 1000


async def _ping(publisher: Publisher, id: str) -> float:
    begun = time.monotonic()
    result = await publisher.send(OTHERS, id, "ping", confirm=True)
    if result is not SendResult.DELIVERED:
        raise RuntimeError(f"a send to a client that reads was answered {result}")
    taken = time.monotonic() - begun
    await asyncio.sleep(0.005)
    return taken


async def _broadcast(publisher: Publisher, count: int) -> None:
    for _ in range(count):
        await publisher.broadcast_message(CROWD, MESSAGE)
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def _broadcasting(publisher: Publisher) -> AsyncIterator[None]:
    async def again() -> None:
        while True:
            await publisher.broadcast_message(CROWD, MESSAGE)
            await asyncio.sleep(PAUSE)

    task = asyncio.create_task(again())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _fill(publisher: Publisher) -> None:
    """Broadcast until those who do not read have all been closed."""

    async def closed() -> bool:
        await _broadcast(publisher, 10)
        return await _empty(publisher)

    await until_async(closed)


async def _empty(publisher: Publisher) -> bool:
    return await publisher.count(CROWD) == 0


async def _stop(node: NodeProcess, publisher: Publisher) -> tuple[float, list[str]]:
    wrong = []
    if await _empty(publisher):
        wrong.append("the crowd was cut before the SIGTERM")
    begun = time.monotonic()
    node.signal(signal.SIGTERM)
    status, _ = await in_thread(node.finish)
    stopped = time.monotonic() - begun
    if status:
        wrong.append(f"exit status {status}")
    if not await _empty(publisher) or await publisher.nodes():
        wrong.append("something is left in Redis")
    return stopped, wrong
