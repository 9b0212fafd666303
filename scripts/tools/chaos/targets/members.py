"""Members without a socket, which keep what they are sent, and some that are clients of a node."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from cluster_pool import BackplaneUnavailableError, ClusterPool, Connection
from tools.harness.nodes import NodeProcess

TOGETHER = 1000
NAMESPACE = "n"


async def clients(node: NodeProcess, namespace: str, ids: Iterable[str]) -> list[ClientConnection]:
    """WebSocket clients that read, and are never the first to close."""
    options: dict[str, Any] = {"compression": None, "ping_interval": None, "open_timeout": 60}
    return await asyncio.gather(*[connect(node.url(namespace, id), **options) for id in ids])


class Member:
    """A connection over a pair of callables."""

    def __init__(self, id: str) -> None:
        self.heard: list[str | bytes] = []
        self.closed: int | None = None
        self.connection = Connection(id, NAMESPACE, (self.heard.append, self._close))

    def _close(self, code: int, reason: str) -> None:
        self.closed = code


async def join(pool: ClusterPool, count: int) -> list[Member]:
    """Make members of a pool, many at a time."""
    members = [Member(f"{pool.node_id}/{at}") for at in range(count)]
    for at in range(0, count, TOGETHER):
        part = members[at : at + TOGETHER]
        await asyncio.gather(*[pool.new_connection(one.connection, timeout=30) for one in part])
    return members


async def until(true: Callable[[], bool], limit: float = 60.0) -> float:
    """Wait for a condition; gives when it came true on the monotonic clock."""
    deadline = time.monotonic() + limit
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit:g} s")
        await asyncio.sleep(0.005)
    return time.monotonic()


async def until_async(true: Callable[[], Awaitable[bool]], limit: float = 60.0) -> float:
    """As :func:`until`, for a condition that must be asked for."""
    deadline = time.monotonic() + limit
    while not await true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {limit:g} s")
        await asyncio.sleep(0.02)
    return time.monotonic()


async def until_whole(pools: Iterable[ClusterPool], wanted: Callable[[], dict[str, str]]) -> float:
    """Wait until every pool is ready and the registry lists just ``wanted``; gives when."""
    pools = list(pools)
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        begun = time.monotonic()
        if all(pool.ready for pool in pools) and await is_whole(pools[0], wanted()):
            return begun
        await asyncio.sleep(0.02)
    raise TimeoutError("the registry was not whole within 90 s")


async def is_whole(pool: ClusterPool, wanted: dict[str, str]) -> bool:
    """Whether counts and lists of the registry say just ``wanted``: id to node id."""
    try:
        if await pool.count(NAMESPACE) != len(wanted):
            return False
        return {one.id: one.node async for one in pool.members(NAMESPACE)} == wanted
    except BackplaneUnavailableError:
        return False
