"""A node is stopped by SIGSTOP past its lease, and others take half of its ids over."""

import asyncio
import contextlib
import signal
import time
from collections.abc import Callable

from cluster_pool import Publisher
from tools.chaos.targets.members import NAMESPACE, clients, until_async
from tools.chaos.targets.rows import Row
from tools.harness.nodes import NodeProcess
from tools.harness.servers import RedisServer

CLOSED = 1.0
IDS = 100
FROZEN = 13.0
TAKEN_OVER = 4409


async def measure(*, times: int, tell: Callable[[str], None]) -> list[Row]:
    """From the moment the node runs again until the last stale connection is closed."""
    closed, wrong = [], []
    for _ in range(times):
        tell(f"SIGSTOP of a node for {FROZEN:g} s, {IDS // 2} of its {IDS} ids taken over")
        seconds, faults = await _freeze()
        closed.append(seconds)
        wrong += faults
    fault = f"SIGSTOP for {FROZEN:g} s, {IDS // 2} of {IDS} ids taken over"
    return [Row(fault, "until stale connections are closed", closed, CLOSED, wrong=wrong)]


async def _freeze() -> tuple[float, list[str]]:
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        one = stack.enter_context(NodeProcess(redis.url, "--node-id", "one"))
        two = stack.enter_context(NodeProcess(redis.url, "--node-id", "two"))
        publisher = await stack.enter_async_context(Publisher(redis.url))
        ids = [f"m{at}" for at in range(IDS)]
        older = await clients(one, NAMESPACE, ids)
        one.signal(signal.SIGSTOP)
        thaw_at = time.monotonic() + FROZEN
        await until_async(lambda: _count(publisher, 0))
        taken = ids[: IDS // 2]
        newer = await clients(two, NAMESPACE, taken)
        wrong = await _not_owned_by(publisher, dict.fromkeys(taken, "two"))
        await asyncio.sleep(thaw_at - time.monotonic())
        one.signal(signal.SIGCONT)
        thawed = time.monotonic()
        await asyncio.gather(*[client.wait_closed() for client in older[: IDS // 2]])
        seconds = time.monotonic() - thawed
        codes = {client.close_code for client in older[: IDS // 2]}
        if codes != {TAKEN_OVER}:
            wrong.append(f"stale connections were closed with {codes}")
        await until_async(lambda: _count(publisher, IDS))
        rest = dict.fromkeys(ids[IDS // 2 :], "one")
        wrong += await _not_owned_by(publisher, {**dict.fromkeys(taken, "two"), **rest})
        if any(client.close_code is not None for client in newer + older[IDS // 2 :]):
            wrong.append("a connection that owns its id was closed")
        await asyncio.gather(*[client.close() for client in newer + older[IDS // 2 :]])
        return seconds, wrong


async def _count(publisher: Publisher, count: int) -> bool:
    return await publisher.count(NAMESPACE) == count


async def _not_owned_by(publisher: Publisher, wanted: dict[str, str]) -> list[str]:
    found = {one.id: one.node async for one in publisher.members(NAMESPACE)}
    return [] if found == wanted else [f"owners are {found}"]
