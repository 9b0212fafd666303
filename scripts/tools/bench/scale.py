"""The cost of a send when the cluster grows: to many nodes, and to many members of a namespace.

Sends to members of one node and to members spread over all nodes take turns, before and after a
node has registered many more. Before every round is one of bare writes: a shared machine changes
its speed within seconds, and what is compared is what a send is to a write of its own round.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from redis.asyncio import Redis

from tools.bench.delivery import Floor, Pair, Rounds, Work, bare_writes, row
from tools.bench.payloads import member_id
from tools.bench.stage import Clients, Settings, Tell, clients, miscounted, node
from tools.bench.table import Row
from tools.harness.programs import Program
from tools.harness.servers import RedisServer

STEADY = 1024
"""Bytes of difference between two looks that count as none."""


@dataclass
class Target:
    """Some members to whom messages are sent, all at once."""

    where: str
    pair: Pair


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """The cost of a send in four cases, and the bytes of a member."""
    nobody, many = "and nobody else", f"beside {settings.members:,} other members"
    with RedisServer() as redis:
        async with (
            Redis.from_url(redis.url) as admin,
            bare_writes(settings) as floor,
            _cluster(settings, loop, redis) as (targets, holder),
        ):
            rows = await _rounds(floor, targets, settings, loop, nobody, tell)
            before = await _used(admin)
            tell(f"scale: {settings.members:,} claims")
            seconds = await holder.ask("join", count=settings.members)
            each = (await _used(admin) - before) / settings.members
            rows += await _rounds(floor, targets, settings, loop, many, tell)
            counted = await holder.ask("count")
            await holder.kill()  # it would release all of them
    wrong = miscounted(counted, settings.members + 2 * settings.connections)
    what = f"{settings.members:,} in one namespace"
    note = "ids of 36 bytes; growth of used_memory"
    return [
        *rows,
        Row(f"Redis memory per member, {what}", "bytes", [each], wrong=wrong, note=note),
        Row("claims by one node, without sockets", "/s", [settings.members / seconds], loop),
    ]


async def _rounds(
    floor: Floor, targets: list[Target], settings: Settings, loop: str, beside: str, tell: Tell
) -> list[Row]:
    """Rounds of each target, which take turns; the first of each is not counted."""
    results = [Rounds() for _ in targets]
    for at in range(settings.rounds + 1):
        tell(f"scale: round {at} of {settings.rounds}, {beside}")
        for target, result in zip(targets, results, strict=True):
            bare = await floor.round(settings.messages, result)
            spent = await target.pair.round(Work("", "targeted", settings.messages), result)
            if at:
                parts = {name: spent.pop(name) for name in ("A", "Redis")}
                result.spent.append({**parts, "other nodes": sum(spent.values())})
                result.floors.append(bare)
    what = f"sends to {settings.connections:,} ids"
    return [
        row(f"{what} {target.where}, {settings.nodes} nodes up, {beside}", loop, result)
        for target, result in zip(targets, results, strict=True)
    ]


@contextlib.asynccontextmanager
async def _cluster(
    settings: Settings, loop: str, redis: RedisServer
) -> AsyncIterator[tuple[list[Target], Program]]:
    """Two senders: to members of a single node, and spread over all but them. And a last node."""
    count = settings.connections
    async with contextlib.AsyncExitStack() as stack:
        holders = [
            await stack.enter_async_context(node(redis.url, f"B{at}", loop))
            for at in range(max(2, settings.nodes) - 1)
        ]
        targets = []
        for first, some in ((0, holders[:1]), (count, holders)):
            readers: Clients = await stack.enter_async_context(clients())
            a = await stack.enter_async_context(node(redis.url, f"A{first}", loop, readers.gate))
            for at, child in enumerate(some):
                begin, end = count * at // len(some), count * (at + 1) // len(some)
                await readers.connect(child.hello["port"], end - begin, first + begin)
            await a.ask("know", ids=[member_id(first + at) for at in range(count)])
            pids = {"A": a.pid, "Redis": redis.pid}
            pids |= {str(at): child.pid for at, child in enumerate(some)}
            where = f"spread over {len(some)} nodes" if len(some) > 1 else "of one node"
            targets.append(Target(where, Pair(a, pids, readers)))
        yield targets, holders[-1]


async def _used(admin: Redis) -> int:
    """used_memory once it stands still: Redis resizes its tables bit by bit."""
    seen = 0
    while True:
        now = int((await admin.info("memory"))["used_memory"])
        if abs(now - seen) <= STEADY:
            return now
        seen = now
        await asyncio.sleep(1.0)
