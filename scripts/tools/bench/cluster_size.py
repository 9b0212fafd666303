"""Idle nodes and messages in clusters of more and more nodes, most of which are leases alone."""

import asyncio
import json

from redis.asyncio import Redis

from tools.bench.shard_stage import NAMESPACES, Stage, nodes, rounds, where
from tools.bench.stage import Settings, Tell
from tools.bench.table import Row
from tools.harness.internals import Keys

SIZES = (10, 100, 1000)
IDLE = 12.0
"""Seconds: four heartbeats."""
SETTLE = 7.5
"""Seconds: each node has read the new leases with one heartbeat, and their nodes with the next."""
LEASE = 3600
"""Seconds for which the leases last that nobody renews. A node cuts what lasts longer than its
holder says."""
BOTH = 2
"""Nodes that really run."""


async def measure(settings: Settings, loop: str, tell: Tell, primaries: int) -> list[Row]:
    """The cost of a node that does nothing, and of messages."""
    rows: list[Row] = []
    async with nodes(primaries, loop) as stage:
        (server,) = stage.servers.values()
        async with Redis.from_url(server.url) as admin:
            await _add_nodes(admin, SIZES[0])
            await asyncio.sleep(SETTLE)
            place = f"{SIZES[0]} nodes without members, {where(primaries)}"
            rows += await _idle(stage, admin, loop, place)
            await stage.b.ask("join", count=NAMESPACES)
            for size in SIZES:
                place = f"{size} nodes, {where(primaries)}"
                tell(f"shards: {place}")
                await _add_nodes(admin, size)
                await asyncio.sleep(SETTLE)
                rows += await _idle(stage, admin, loop, place)
                for do, what in (("targeted", "sends"), ("broadcast", "broadcasts")):
                    name = f"{what} to {NAMESPACES} namespaces at once, {place}"
                    rows.append(await rounds(stage, settings, do, 1, Row(name, "µs", [], loop)))
    return rows


async def _add_nodes(admin: Redis, size: int) -> None:
    """Write leases as nodes have them."""
    keys = Keys()
    seconds, _ = await admin.time()
    async with admin.pipeline(transaction=False) as pipeline:
        for at in range(size - BOTH):
            name, node = f"Fake{at:04}.0", f"websockets-{at}"
            pipeline.zadd(keys.leases, {name: (seconds + LEASE) * 1000})
            pipeline.hset(keys.incarnations, name, node)
            pipeline.hset(keys.nodes, node, name)
            info = {"state": "active", "connections": 0, "lease": LEASE}
            pipeline.hset(keys.infos, name, json.dumps(info))
        await pipeline.execute()


async def _idle(stage: Stage, admin: Redis, loop: str, place: str) -> list[Row]:
    """Both nodes do nothing for a while."""
    before, meter = await admin.info(), stage.meter()
    await asyncio.sleep(IDLE)
    spent, after = meter.micros(), await admin.info()
    per_second = IDLE * BOTH

    def grown(what: str) -> float:
        return (int(after[what]) - int(before[what])) / per_second

    redis = sum(spent[name] for name in stage.servers) / per_second
    return [
        Row(f"idle, of {place}: {what}", unit, [value], loop, note="of one node, per second")
        for what, unit, value in (
            ("CPU of Redis", "µs", redis),
            ("CPU of the node", "µs", (spent["A"] + spent["B"]) / per_second),
            ("commands", "/s", grown("total_commands_processed")),
            ("bytes from Redis", "bytes", grown("total_net_output_bytes")),
        )
    ]
