"""Bytes of Redis per member, claimed through the pool as every member is."""

import asyncio
import contextlib
from collections.abc import Callable

from redis.asyncio import Redis

from cluster_pool.embedded import EmbeddedServer
from tools.bench.cluster import NAMESPACE, Settings, node
from tools.bench.table import Row

STEADY = 1024
"""Bytes of difference between two looks that count as none."""


async def measure(settings: Settings, rounds: int, tell: Callable[[str], None]) -> list[Row]:
    """``used_memory`` with the members less what it was without, per member."""
    samples, rates, wrong = [], [], ""
    for at in range(rounds):
        tell(f"registry: round {at + 1} of {rounds}")
        async with contextlib.AsyncExitStack() as stack:
            redis = stack.enter_context(EmbeddedServer())
            admin = await stack.enter_async_context(Redis.from_url(redis.url))
            child = await stack.enter_async_context(node(redis.url, "B", "asyncio"))
            before = await used(admin)
            said = await child.ask("join", namespace=NAMESPACE, count=settings.members)
            after = await used(admin)
            if said["count"] != settings.members:
                wrong = f"WRONG: {said['count']:,} members"
            samples.append((after - before) / settings.members)
            rates.append(settings.members / said["seconds"])
            await child.kill()
    return [
        Row(
            f"Redis memory per member, {settings.members:,} in one namespace",
            "bytes",
            samples,
            wrong=wrong,
            note="ids of 36 bytes; growth of used_memory",
        ),
        Row("claims by one node without sockets, asyncio", "/s", rates, wrong=wrong),
    ]


async def used(admin: Redis) -> int:
    """used_memory once it stands still: Redis resizes its tables bit by bit."""
    seen = 0
    while True:
        now = int((await admin.info("memory"))["used_memory"])
        if abs(now - seen) <= STEADY:
            return now
        seen = now
        await asyncio.sleep(1.0)
