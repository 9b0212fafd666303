"""A Redis Cluster: what messages and joins cost each primary, what nodes cost as they become more,
and a node with very many namespaces.

One node sends to 300 namespaces whose members another one holds, without WebSockets. CPU time is
measured, which other programs change less than wall-clock time.
"""

from tools.bench import cluster_size, fan_out, many_namespaces
from tools.bench.shard_stage import NAMESPACES, Stage, nodes, rounds, where
from tools.bench.stage import Settings, Tell
from tools.bench.table import Row

PRIMARIES = (0, 1, 2, 3)
"""The clusters that are compared; 0 is one Redis that is no cluster."""
BURSTS = (1, 16)
MEMBERS = 20
"""More in each namespace, when joins are measured."""


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """Messages and joins over each kind of cluster; then its size, and many namespaces."""
    rows: list[Row] = []
    for primaries in PRIMARIES:
        tell(f"shards: messages over {where(primaries)}")
        async with nodes(primaries, loop) as stage:
            await stage.b.ask("join", count=NAMESPACES)
            rows += await _messages(stage, settings, loop, where(primaries))
            rows += await _joins(stage, loop, where(primaries))
    rows += await fan_out.measure(settings, tell)
    for primaries in (0, 1):
        rows += await cluster_size.measure(settings, loop, tell, primaries)
    for primaries in (0, PRIMARIES[-1]):
        rows += await many_namespaces.measure(settings, loop, tell, primaries)
    return rows


async def _messages(stage: Stage, settings: Settings, loop: str, servers: str) -> list[Row]:
    rows = []
    for what, do in (("broadcasts", "broadcast"), ("sends", "targeted")):
        for burst in BURSTS:
            name = f"{what} to {NAMESPACES} namespaces, {burst} to each at once, {servers}"
            rows.append(await rounds(stage, settings, do, burst, Row(name, "µs", [], loop)))
    return rows


async def _joins(stage: Stage, loop: str, servers: str) -> list[Row]:
    """More members join namespaces that this node has already, and all leave."""
    total, rows = NAMESPACES * MEMBERS, []
    for what, do in (("joins", "join_more"), ("leaves", "part_more")):
        meter = stage.meter()
        await stage.b.ask(do, count=NAMESPACES, members=MEMBERS)
        parts = meter.micros(total)
        parts.pop("A")
        note = f"CPU per member, {total:,} in {NAMESPACES} namespaces"
        name = f"a member {what}, {servers}"
        rows.append(Row(name, "µs", [sum(parts.values())], loop, note=note, parts=parts))
    return rows
