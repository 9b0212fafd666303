"""Redis is killed and started again, empty or from an old snapshot, under 10,000 members."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Callable

from cluster_pool import BackplaneUnavailableError, ClusterPool, Gap
from tools.chaos.targets.members import NAMESPACE, Member, join, until, until_whole
from tools.chaos.targets.rows import Row
from tools.harness.servers import RedisServer

NODES = 3
HEARING, WHOLE = 2.5, 5.0
RATE = 100.0
"""Broadcasts a second, all the time."""


async def measure(
    *, members: int, downs: tuple[float, ...], tell: Callable[[str], None]
) -> list[Row]:
    """For each way to come back and each time away: until it is heard again, until it is whole."""
    rows = []
    for snapshot in (False, True):
        name = "from an old snapshot" if snapshot else "empty"
        hearing, whole, wrong = [], [], []
        for down in downs:
            tell(f"Redis killed, down for {down:g} s, {name}")
            one = await _restart(members // NODES, down, snapshot=snapshot)
            hearing.append(one[0])
            whole.append(one[1])
            wrong += one[2]
        away = ", ".join(f"{down:g}" for down in downs)
        fault = f"Redis killed, down {away} s, back {name}"
        rows += [
            Row(fault, "until every node hears again, after it is back", hearing, HEARING),
            Row(fault, f"until {members:,} members are registered", whole, WHOLE, wrong=wrong),
        ]
    return rows


async def _restart(each: int, down: float, *, snapshot: bool) -> tuple[float, float, list[str]]:
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        pools = [
            await stack.enter_async_context(
                ClusterPool(f"unix://{redis.path}", node_id=f"node-{at}")
            )
            for at in range(NODES)
        ]
        first = [await join(pool, each - 1) for pool in pools]
        gaps: list[Gap] = []
        for pool in pools:
            pool.on("gap", gaps.append)
        if snapshot:
            redis.save()
        late = [await join_late(pool) for pool in pools]
        everyone = [member for group in first for member in group] + late
        wanted = {one.connection.id: one.connection.id.split("/")[0] for one in everyone}
        stream = await stack.enter_async_context(streaming(pools[0]))
        await asyncio.sleep(0.5)
        redis.kill()
        await asyncio.sleep(down)
        redis.start(empty=not snapshot)
        back = time.monotonic()
        marks = [len(one.heard) for one in late]
        heard = await until(
            lambda: all(len(one.heard) > mark for one, mark in zip(late, marks, strict=True))
        )
        whole = await until_whole(pools, lambda: wanted)
        await stream()
        return heard - back, whole - back, _faults(everyone, late, gaps)


async def join_late(pool: ClusterPool) -> Member:
    """A member of whom the snapshot knows nothing."""
    member = Member(f"{pool.node_id}/late")
    await pool.new_connection(member.connection)
    return member


def _faults(everyone: list[Member], late: list[Member], gaps: list[Gap]) -> list[str]:
    wrong = []
    closed = sum(one.closed is not None for one in everyone)
    if closed:
        wrong.append(f"{closed} clients were closed")
    if any(gap.exact for gap in gaps):
        wrong.append("a gap was called exact")
    for one in late:
        numbers = [int(text) for text in one.heard]
        if numbers != sorted(set(numbers)):
            wrong.append("a message came twice, or out of order")
    return wrong


@contextlib.asynccontextmanager
async def streaming(pool: ClusterPool) -> AsyncIterator[Callable[[], "asyncio.Future[None]"]]:
    """Broadcast numbers all the time; gives what ends it."""
    ended = asyncio.Event()

    async def stream() -> None:
        for number in itertools.count():
            if ended.is_set():
                return
            with contextlib.suppress(BackplaneUnavailableError):
                await pool.broadcast_message(NAMESPACE, str(number), timeout=0.05)
            await asyncio.sleep(1 / RATE)

    task = asyncio.create_task(stream())

    async def end() -> None:
        ended.set()
        await task

    try:
        yield lambda: asyncio.ensure_future(end())
    finally:
        await end()
