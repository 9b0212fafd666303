"""Connections join many namespaces at once, and all go at once: what a membership costs, and for
how long anything else on the node, or on Redis, has to wait."""

from redis.asyncio import Redis

from tools.bench.stage import Settings, Tell, node
from tools.bench.table import Row
from tools.harness.linux import resident_bytes
from tools.harness.programs import Program
from tools.harness.servers import RedisServer

EACH = 20
"""Namespaces that each connection joins."""
MEMBERS = 100
"""Members of each of these."""
WARM = 2
"""The first of them are joined before the first look, so that the heap has its size."""
LOGGED_US = 500
"""Scripts from this time on are logged by Redis."""


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """A fresh node in each round; its connections have no sockets."""
    found: dict[str, list[float]] = {}
    wrong = ""
    for at in range(settings.fresh_rounds):
        tell(f"rooms, {loop}: round {at + 1} of {settings.fresh_rounds}")
        with RedisServer() as redis:
            async with node(redis.url, "B", loop) as server, Redis.from_url(redis.url) as admin:
                await admin.config_set("slowlog-log-slower-than", LOGGED_US)
                await admin.config_set("slowlog-max-len", 1000)
                one, fault = await _round(server, admin, settings.storm)
                wrong = wrong or fault
                for name, value in one.items():
                    found.setdefault(name, []).append(value)
    what = f"{settings.storm:,} connections in {EACH} namespaces each"
    units = {
        "until all have joined": "s",
        "until all have gone": "s",
        "the longest turn of the node's loop while they join": "ms",
        "the longest turn of the node's loop while they go": "ms",
        "the longest script": "ms",
        "memory of the node per membership": "bytes",
        "memory of Redis per membership": "bytes",
    }
    return [
        Row(f"{what}: {name}", unit, found[name], loop, wrong=wrong) for name, unit in units.items()
    ]


async def _round(server: Program, admin: Redis, count: int) -> tuple[dict[str, float], str]:
    """The figures of one round by name, and what was wrong."""
    rooms = max(EACH, count * EACH // MEMBERS)
    await server.ask("join", count=count)
    await server.ask("join_rooms", rooms=rooms, first=0, each=WARM)
    before, more = await _memory(server, admin), count * (EACH - WARM)
    await admin.slowlog_reset()
    await server.ask("longest_turn")
    joined = await server.ask("join_rooms", rooms=rooms, first=WARM, each=EACH - WARM)
    coming = await server.ask("longest_turn")
    after = await _memory(server, admin)
    registered = sum(await server.ask("counts", rooms=rooms))
    wrong = "" if registered == count * EACH else f"{registered} of {count * EACH} memberships"
    await server.ask("longest_turn")
    gone = await server.ask("go")
    going = await server.ask("longest_turn")
    scripts = [
        one["duration"] for one in await admin.slowlog_get(1000) if one["command"][:4] == b"EVAL"
    ]
    own, theirs = ((now - then) / more for now, then in zip(after, before, strict=True))
    return {
        "until all have joined": joined,
        "until all have gone": gone,
        "the longest turn of the node's loop while they join": coming * 1000,
        "the longest turn of the node's loop while they go": going * 1000,
        "the longest script": max(scripts, default=0) / 1000,
        "memory of the node per membership": own,
        "memory of Redis per membership": theirs,
    }, wrong


async def _memory(server: Program, admin: Redis) -> tuple[int, int]:
    """The resident bytes of the node, and the bytes that Redis has allocated."""
    await server.ask("collect")
    return resident_bytes(server.pid), int((await admin.info("memory"))["used_memory"])
