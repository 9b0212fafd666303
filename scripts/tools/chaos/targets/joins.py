"""1,000 joins and leaves while the links of both nodes are cut again and again."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable

from cluster_pool import BackplaneUnavailableError, ClusterPool
from tools.chaos.targets.members import NAMESPACE, Member, until_whole
from tools.chaos.targets.rows import Row
from tools.harness.proxy import Proxy
from tools.harness.servers import RedisServer

AGREED = 3.0
EACH = 500
SPREAD = 5.0
"""Seconds over which the joins are spread."""


async def measure(*, times: int, tell: Callable[[str], None]) -> list[Row]:
    """From the last cut until the registry is what the pools hold."""
    agreed, wrong = [], []
    for seed in range(times):
        tell("1,000 joins and leaves during cuts")
        seconds, faults = await _joins(random.Random(seed))
        agreed.append(seconds)
        wrong += faults
    fault = "1,000 joins and leaves during cuts"
    return [Row(fault, "until Redis has what the nodes hold", agreed, AGREED, wrong=wrong)]


async def _joins(chance: random.Random) -> tuple[float, list[str]]:
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        pools, proxies = [], []
        for name in ("one", "two"):
            proxy = await stack.enter_async_context(Proxy(redis.path))
            url = f"redis://127.0.0.1:{proxy.port}"
            pools.append(await stack.enter_async_context(ClusterPool(url, node_id=name)))
            proxies.append(proxy)
        calm = asyncio.Event()
        cutting = [asyncio.create_task(_cut(proxy, chance, calm)) for proxy in proxies]
        visits = [_visit(pool, at, chance) for pool in pools for at in range(EACH)]
        await asyncio.gather(*visits)
        calm.set()
        last = max(await asyncio.gather(*cutting))
        whole = await until_whole(pools, lambda: _held(pools))
        wanted = _held(pools)
        lost = sum(pool.statistics()["taken_over"] for pool in pools)
        wrong = [f"{lost} connections lost their id to nobody"] if lost else []
        if any(int(id.split("/")[1]) % 2 for id in wanted):
            wrong.append("somebody who left is still there")
        return whole - last, wrong


def _held(pools: list[ClusterPool]) -> dict[str, str]:
    """Who is a member where, as the nodes see it: a release that a cut delayed changes it later."""
    return {
        member.id: pool.node_id
        for pool in pools
        for member in (pool._parts.table.namespace(NAMESPACE) or {}).values()
    }


async def _cut(proxy: Proxy, chance: random.Random, calm: asyncio.Event) -> float:
    while not calm.is_set():
        await asyncio.sleep(chance.uniform(0.05, 0.4))
        await proxy.cut()
    return time.monotonic()


async def _visit(pool: ClusterPool, at: int, chance: random.Random) -> None:
    """Join; every second one leaves again."""
    await asyncio.sleep(chance.uniform(0, SPREAD))
    member = Member(f"{pool.node_id}/{at}")
    try:
        await pool.new_connection(member.connection)
    except BackplaneUnavailableError:
        return
    if at % 2:
        await asyncio.sleep(chance.uniform(0, 1))
        with contextlib.suppress(BackplaneUnavailableError):
            await pool.remove_connection(member.connection)
