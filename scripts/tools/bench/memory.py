"""Resident memory of a node per idle connection."""

import asyncio
import contextlib
from collections.abc import Callable

from cluster_pool.embedded import EmbeddedServer
from tools.bench.children import Child
from tools.bench.cluster import NAMESPACE, Settings, clients, node
from tools.bench.machine import resident_bytes
from tools.bench.table import Row

FIRST = 200
"""Connections that are there before the first look, so that code and pools are warm."""
SETTLE = 2.0


async def measure(
    settings: Settings, loop: str, rounds: int, tell: Callable[[str], None]
) -> list[Row]:
    """KiB by which a fresh node grows, divided by the connections it grew by."""
    samples, wrong = [], ""
    for at in range(rounds):
        tell(f"memory, {loop}: round {at + 1} of {rounds}")
        async with contextlib.AsyncExitStack() as stack:
            redis = stack.enter_context(EmbeddedServer())
            child = await stack.enter_async_context(node(redis.url, "B", loop))
            peers = await stack.enter_async_context(clients())
            await peers.connect(child.hello["port"], NAMESPACE, FIRST)
            before = await settled(child)
            await peers.connect(child.hello["port"], NAMESPACE, settings.idle, first=FIRST)
            after = await settled(child)
            count = (await child.ask("count", namespace=NAMESPACE))["count"]
            if count != FIRST + settings.idle:
                wrong = f"WRONG: {count:,} members, not {FIRST + settings.idle:,}"
            samples.append((after - before) / settings.idle / 1024)
    what = f"memory per idle connection, {settings.idle:,} of them"
    return [Row(what, "KiB", samples, loop, wrong=wrong, note="growth of the node's RSS")]


async def settled(child: Child) -> int:
    """Resident bytes of a node after a while and a garbage collection."""
    await asyncio.sleep(SETTLE)
    await child.ask("collect")
    return resident_bytes(child.pid)
