"""Presence: what an info costs, and a namespace of very many members with one watcher."""

from typing import Any

from redis.asyncio import Redis

from tools.bench.stage import Meter, Settings, Tell, miscounted, node
from tools.bench.table import Row
from tools.harness.linux import resident_bytes
from tools.harness.programs import Program
from tools.harness.servers import RedisServer

STORM = 10_000
"""Members that join at once while there is a watcher."""


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """Members with an info of 40 bytes on node B, and the watcher at node A."""
    tell(f"watched, {loop}: {settings.members:,} members")
    with RedisServer() as redis:
        async with (
            node(redis.url, "A", loop) as watcher,
            node(redis.url, "B", loop) as server,
            Redis.from_url(redis.url) as admin,
        ):
            before = await _used(admin)
            await server.ask("join", count=settings.members)
            plain = (await _used(admin) - before) / settings.members
            await server.ask("inform")
            told = (await _used(admin) - before) / settings.members - plain
            rows = await _watch(settings, watcher, server, loop)
    info = Row("memory of Redis for an info of 40 bytes", "bytes", [told], loop)
    return [info, *rows]


async def _used(admin: Redis) -> int:
    return int((await admin.info("memory"))["used_memory"])


async def _watch(settings: Settings, watcher: Program, server: Program, loop: str) -> list[Row]:
    what = f"{settings.members:,} members, one watcher"
    await watcher.ask("collect")
    memory, meter = resident_bytes(watcher.pid), Meter({"A": watcher.pid})
    snapshot = await watcher.ask("watch_members")
    cpu = meter.micros(settings.members)["A"]
    await watcher.ask("collect")
    grown = (resident_bytes(watcher.pid) - memory) / settings.members
    storm = Meter({"A": watcher.pid})
    await server.ask("join_more", count=STORM)
    seen: dict[str, Any] = await watcher.ask("watched", members=settings.members + STORM)
    wrong = miscounted(seen["members"], settings.members + STORM)
    joins = f"{what}: {STORM:,} join at once"
    return [
        Row(f"{what}: until it has them", "s", [snapshot], loop),
        Row(f"{what}: CPU of its node for each", "µs", [cpu], loop),
        Row(f"{what}: memory of its node for each", "bytes", [grown], loop),
        Row(f"{joins}: changes that it is given", "", [seen["changes"]], loop, wrong=wrong),
        Row(f"{joins}: CPU of its node for each", "µs", [storm.micros(STORM)["A"]], loop),
    ]
