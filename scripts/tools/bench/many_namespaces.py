"""A node with a member in each of very many namespaces: its start, its memory, and its faults."""

import time
from collections.abc import AsyncIterator, Callable
from functools import partial

from tools.bench.shard_stage import NAMESPACES, Stage, nodes, where
from tools.bench.stage import Settings, Tell
from tools.bench.table import Row
from tools.harness.linux import resident_bytes
from tools.harness.servers import RedisServer


async def measure(settings: Settings, loop: str, tell: Tell, primaries: int) -> list[Row]:
    """Join all, then cut links and move a slot."""
    count = settings.namespaces
    what = f"{count:,} namespaces on one node, {where(primaries)}"
    tell(f"shards: {what}")
    async with nodes(primaries, loop) as stage:
        more = count - NAMESPACES
        await stage.b.ask("join", count=NAMESPACES)
        before, meter = await _memory(stage), stage.meter()
        seconds = await stage.b.ask("join", count=more, first=NAMESPACES)
        joined = meter.micros(more)
        after = await _memory(stage)
        joined.pop("A")
        node, *servers = [(now - then) / more for now, then in zip(after, before, strict=True)]
        rss = "a member in each; growth of RSS"
        rows = [
            Row(f"{what}: until all are members", "s", [seconds], loop),
            Row(f"{what}: CPU of each", "µs", [sum(joined.values())], loop, parts=joined),
            Row(f"{what}: memory of the node for each", "bytes", [node], loop, note=rss),
            Row(f"{what}: memory of Redis for each", "bytes", [sum(servers)], loop, note=rss),
        ]
        rows += [row async for row in _faults(stage, what, loop)]
        await stage.b.kill()  # it would release all of them
    return rows


async def _memory(stage: Stage) -> list[int]:
    """The node's and each server's."""
    await stage.b.ask("collect")
    return [resident_bytes(pid) for pid in (stage.b.pid, *[one.pid for one in _servers(stage)])]


def _servers(stage: Stage) -> list[RedisServer]:
    return list(stage.servers.values())


async def _faults(stage: Stage, what: str, loop: str) -> AsyncIterator[Row]:
    """Each fault, and the longest turn of the node until it has registered everything."""
    for name, generations, fault in _all(stage):
        await stage.b.ask("mark")
        await stage.b.ask("longest_turn")
        meter, begun = stage.meter(), time.monotonic()
        fault()
        seconds = await stage.b.ask("restored", generations=generations) - begun
        parts = meter.micros()
        parts = {process: spent / 1e6 for process, spent in parts.items() if process != "A"}
        turn = await stage.b.ask("longest_turn") * 1000
        yield Row(f"{what}: longest turn after {name}", "ms", [turn], loop, note="CPU time")
        yield Row(
            f"{what}: until it is whole after {name}",
            *("s", [seconds], loop),
            parts=parts,
            note="CPU in s",
        )


def _all(stage: Stage) -> list[tuple[str, int, Callable[[], object]]]:
    """Faults, and how many generations of links they end."""
    redis = stage.redis
    if isinstance(redis, RedisServer):
        return [("its link was cut", 1, partial(redis.command, *CUT))]
    home, slot = redis.primary_of("{~}"), redis.slot_of("room-7")
    other = next(one for one in redis.nodes if one is not home)
    target = next(one for one in redis.nodes if one is not redis.owner(slot))
    return [
        ("links to one primary were cut", 1, partial(other.call, *CUT)),
        ("links to home were cut", 2, partial(home.call, *CUT)),
        ("a slot moved", 0, partial(redis.move_slot, slot, target)),
    ]


CUT = ("CLIENT", "KILL", "TYPE", "pubsub")
