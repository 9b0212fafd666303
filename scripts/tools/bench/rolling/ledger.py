"""How often drainers ask Redis for their lease, and what one answer costs it."""

import asyncio
import contextlib
from collections import defaultdict
from typing import Any, Self

from redis.asyncio import Redis

from cluster_pool.backplane.scripts import sources
from cluster_pool.core.keys import Keys

LOOKS_PER_SECOND = 20
SEEN_FIELD = 5
"""Of an entry of the ledger: when its drainer last renewed it."""
CALLS = 2000


class Renewals:
    """Counts the renewals of each drainer while it is entered, by looking at the ledger."""

    def __init__(self, admin: Redis) -> None:
        self._admin = admin
        self._seen: dict[bytes, list[float]] = defaultdict(list)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *error: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def per_second(self) -> float:
        """Of the drainer that asked most often."""
        rates = [
            (len(times) - 1) / (times[-1] - times[0]) * 1000
            for times in self._seen.values()
            if len(times) > 2
        ]
        return max(rates, default=0.0)

    async def _look(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                for node, entry in (await self._entries()).items():
                    seen = float(entry.split()[SEEN_FIELD])
                    if not self._seen[node] or self._seen[node][-1] != seen:
                        self._seen[node].append(seen)
            await asyncio.sleep(1 / LOOKS_PER_SECOND)

    async def _entries(self) -> dict[bytes, bytes]:
        found: Any = self._admin.hgetall(Keys().drains)
        entries: dict[bytes, bytes] = await found
        return entries


async def call_cost(admin: Redis, drainers: int, living: int) -> float:
    """Milliseconds of the server for one lease, by its own account, with so many on the ledger."""
    keys = Keys("bench-ledger")
    names = [keys.drains, keys.calm, keys.leases, keys.headrooms, keys.budget]
    script = admin.register_script(sources()["drain"])
    far = 1 << 52
    for at in range(living):
        await admin.zadd(keys.leases, {f"other-{at}": far})
        # redis-py's types say of a coroutine's result that it may be none
        await admin.hset(keys.headrooms, f"other-{at}", "200")  # type: ignore[misc]
    before = await _spent(admin)
    for at in range(CALLS):
        node = f"drainer-{at % drainers}"
        ask = ["draining", 1000, 1000, 60_000, "", "10", "known", "2000"]
        await script(keys=names, args=[far, node, node, *ask])
    calls, micros = await _spent(admin)
    await admin.delete(*names)
    return (micros - before[1]) / (calls - before[0]) / 1000


async def _spent(admin: Redis) -> tuple[int, int]:
    stats: Any = await admin.info("commandstats")
    one: dict[str, int] = stats.get("cmdstat_evalsha", {"calls": 0, "usec": 0})
    return one["calls"], one["usec"]
