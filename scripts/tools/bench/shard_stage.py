"""Two nodes over one Redis or a cluster of several primaries, for the scenario ``shards``."""

import contextlib
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass

from tools.bench.stage import PATIENCE, Meter, Settings
from tools.bench.table import Row
from tools.harness.programs import Program, program
from tools.harness.redis_cluster import RedisCluster
from tools.harness.servers import RedisServer

NAMESPACES = 300
NODE_TIMEOUT = 20.0


@dataclass
class Stage:
    """Two nodes, and the Redis servers below them."""

    a: Program
    b: Program
    servers: dict[str, RedisServer]
    redis: RedisServer | RedisCluster

    def meter(self) -> Meter:
        """CPU of all processes from now on."""
        pids = {name: server.pid for name, server in self.servers.items()}
        return Meter({"A": self.a.pid, "B": self.b.pid, **pids})


@contextlib.asynccontextmanager
async def nodes(primaries: int, loop: str) -> AsyncIterator[Stage]:
    """Start both; with 0 primaries over one Redis that is no cluster."""
    with contextlib.ExitStack() as servers:
        redis: RedisServer | RedisCluster
        if primaries:
            cluster = RedisCluster(primaries=primaries, replicas=0, node_timeout=NODE_TIMEOUT)
            redis = servers.enter_context(cluster)
            by_name = {f"Redis {at}": one.server for at, one in enumerate(cluster.nodes, 1)}
        else:
            redis = servers.enter_context(RedisServer())
            by_name = {"Redis": redis}
        module = "tools.bench.shard_node"
        async with (
            program(module, redis.url, "A", loop, patience=PATIENCE) as a,
            program(module, redis.url, "B", loop, patience=2 * PATIENCE) as b,
        ):
            yield Stage(a, b, by_name, redis)


def where(primaries: int) -> str:
    """The servers in words."""
    if not primaries:
        return "one Redis"
    return "a cluster of one primary" if primaries == 1 else f"a cluster of {primaries} primaries"


async def rounds(stage: Stage, settings: Settings, do: str, burst: int, row: Row) -> Row:
    """CPU per message by process, of as many rounds as are wanted; the first is not counted."""
    times = max(1, settings.messages // burst)
    total = NAMESPACES * burst * times
    spent: list[dict[str, float]] = []
    for at in range(settings.fresh_rounds + 1):
        meter = stage.meter()
        unheard = await stage.a.ask(do, count=NAMESPACES, rounds=times, burst=burst)
        received = await stage.b.ask("received", total=total)
        if at:
            spent.append(meter.micros(total))
        if unheard or received != total:
            row.wrong = f"WRONG: {received:,} of {total:,} received, {unheard:,} unheard"
    row.samples = [sum(parts.values()) for parts in spent]
    row.parts = {name: statistics.median(one[name] for one in spent) for name in spent[0]}
    busiest = max(row.parts[name] for name in stage.servers)
    row.note = f"CPU per message; the busiest Redis would be full at {1e6 / busiest:,.0f}/s"
    return row
