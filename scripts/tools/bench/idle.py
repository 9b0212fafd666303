"""Connections that say nothing: what each costs a node and Redis at once, and as time goes by.

A fresh node in each round. The clients answer pings and nothing else.
"""

import asyncio

from redis.asyncio import Redis

from tools.bench.stage import Meter, Settings, Tell, clients, miscounted, node
from tools.bench.table import Row
from tools.harness.linux import resident_bytes
from tools.harness.programs import Program
from tools.harness.servers import RedisServer

FIRST = 200
"""Connections that are there before the first look, so that code and pools are warm."""
TOGETHER = 1000
"""Clients that connect before their program may answer pings again."""
SETTLE = 2.0


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """KiB by which the node grows for each connection; of the last round CPU and commands."""
    memory, wrong = [], ""
    cpu: dict[str, float] = {}
    for at in range(settings.fresh_rounds):
        tell(f"idle, {loop}: round {at + 1} of {settings.fresh_rounds}")
        with RedisServer() as redis:
            async with node(redis.url, "B", loop) as server, clients() as readers:
                await readers.connect(server.hello["port"], FIRST)
                before = await settled(server)
                for done in range(0, settings.idle, TOGETHER):
                    some = min(TOGETHER, settings.idle - done)
                    await readers.connect(server.hello["port"], some, FIRST + done)
                memory.append((await settled(server) - before) / settings.idle / 1024)
                expected = FIRST + settings.idle
                wrong = wrong or miscounted(await server.ask("count"), expected)
                if at == settings.fresh_rounds - 1:
                    tell(f"idle, {loop}: {settings.idle_seconds:g} s of nothing")
                    cpu, commands = await _spent(redis, server, settings.idle_seconds)
    of_all = f"per idle connection, {settings.idle:,} of them"
    each = {name: spent / expected for name, spent in cpu.items()}
    growth = "growth of the node's RSS"
    return [
        Row(f"memory {of_all}", "KiB", memory, loop, wrong=wrong, note=growth),
        Row(
            f"CPU per minute {of_all}",
            "ms",
            [sum(each.values())],
            loop,
            note="pings included",
            parts=each,
        ),
        Row(f"commands to Redis per second, {settings.idle:,} idle", "/s", [commands], loop),
    ]


async def settled(program: Program) -> int:
    """Resident bytes of a node after a while and a garbage collection."""
    await asyncio.sleep(SETTLE)
    await program.ask("collect")
    return resident_bytes(program.pid)


async def _spent(
    redis: RedisServer, server: Program, seconds: float
) -> tuple[dict[str, float], float]:
    """CPU in ms per minute by process, and commands that Redis was given per second."""
    async with Redis.from_url(redis.url) as admin:
        before = await _commands(admin)
        meter = Meter({"node": server.pid, "Redis": redis.pid})
        await asyncio.sleep(seconds)
        spent = meter.micros()
        told = await _commands(admin) - before
    return {name: micros / 1000 * 60 / seconds for name, micros in spent.items()}, told / seconds


async def _commands(admin: Redis) -> int:
    return int((await admin.info("stats"))["total_commands_processed"])
