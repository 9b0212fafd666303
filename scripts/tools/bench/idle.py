"""Connections that say nothing: what each costs two nodes and Redis while time goes by.

Two nodes, each with a client process of its own; the clients answer pings and nothing else.
"""

import asyncio
import contextlib
from collections.abc import Callable

from redis.asyncio import Redis

from cluster_pool.embedded import EmbeddedServer
from tools.bench.children import Child
from tools.bench.cluster import NAMESPACE, Meter, Settings, clients, node
from tools.bench.memory import FIRST, settled
from tools.bench.table import Row

NAMES = ("A", "B")
TOGETHER = 1000
"""Clients that connect before their program may answer pings again."""


class Idlers:
    """Two nodes, their Redis, and a look at what they spend."""

    def __init__(self, nodes: list[Child], redis: int, admin: Redis) -> None:
        self._nodes = nodes
        self._redis = redis
        self._admin = admin

    async def memory(self) -> int:
        """Resident bytes of both nodes once they stand still."""
        return sum([await settled(child) for child in self._nodes])

    async def spend(self, seconds: float) -> tuple[dict[str, float], float]:
        """CPU in ms per minute by process, and commands that Redis was given per second."""
        pids = dict(zip(NAMES, [child.pid for child in self._nodes], strict=True))
        before = await self._commands()
        meter = Meter({**pids, "Redis": self._redis})
        await asyncio.sleep(seconds)
        spent = meter.micros(1)
        told = await self._commands() - before
        return {name: micros / 1000 * 60 / seconds for name, micros in spent.items()}, (
            told / seconds
        )

    async def _commands(self) -> int:
        return int((await self._admin.info("stats"))["total_commands_processed"])


async def measure(settings: Settings, loop: str, tell: Callable[[str], None]) -> list[Row]:
    """Memory, CPU per minute and commands per second, beside those of the two nodes alone."""
    each, seconds = settings.idle_each, settings.idle_seconds
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(EmbeddedServer())
        admin = await stack.enter_async_context(Redis.from_url(redis.url))
        nodes = [await stack.enter_async_context(node(redis.url, name, loop)) for name in NAMES]
        peers = [await stack.enter_async_context(clients()) for _ in NAMES]
        idlers = Idlers(nodes, redis.pid, admin)

        async def connect(count: int, after: int) -> None:
            for done in range(0, count, TOGETHER):
                part = min(TOGETHER, count - done)
                for at, (child, peer) in enumerate(zip(nodes, peers, strict=True)):
                    first = at * (each + FIRST) + after + done
                    await peer.connect(child.hello["port"], NAMESPACE, part, first=first)

        await connect(FIRST, 0)
        memory = await idlers.memory()
        tell(f"idle, {loop}: {seconds:g} s with hardly anybody")
        empty, few_commands = await idlers.spend(seconds)
        tell(f"idle, {loop}: connecting {2 * each:,}")
        await connect(each, FIRST)
        grown = await idlers.memory() - memory
        tell(f"idle, {loop}: {seconds:g} s with all of them")
        full, commands = await idlers.spend(seconds)
        count = (await nodes[0].ask("count", namespace=NAMESPACE))["count"]
    expected = 2 * (each + FIRST)
    wrong = "" if count == expected else f"WRONG: {count:,} members, not {expected:,}"
    of_all = f"{2 * each:,} idle connections on two nodes"
    alone = sum(empty.values())
    return [
        Row(
            f"memory per connection, {of_all}",
            "KiB",
            [grown / (2 * each) / 1024],
            loop,
            wrong=wrong,
            note="growth of both nodes' RSS",
        ),
        Row(
            f"CPU per connection per minute, {of_all}",
            "ms",
            [sum(full.values()) / (2 * each)],
            loop,
            wrong=wrong,
            note=f"pings included; the same nodes with {FIRST} each: {alone:.0f} ms in all",
            parts={name: spent / (2 * each) for name, spent in full.items()},
        ),
        Row(
            f"commands to Redis per second, {of_all}",
            "/s",
            [commands],
            loop,
            wrong=wrong,
            note=f"with {FIRST} connections each: {few_commands:.1f}",
        ),
    ]
