"""A client that knows no node and sends PUBLISH, as redis-cli does; never through a proxy."""

import asyncio
import contextlib
import random
import time
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tools.chaos.books import PUBLISH
from tools.chaos.ledger import Ledger

TIMEOUT = 2.0


class RawPublisher:
    """Publishes numbered messages one after another.

    Each link has a sender's name of its own: what a frozen Redis has not read of one link it may
    read after what came over the next, so there is an order within a link alone.
    """

    def __init__(self, path: Path, ledger: Ledger, namespaces: list[str], seed: int) -> None:
        self._path = path
        self._ledger = ledger
        self._namespaces = namespaces
        self._random = random.Random(seed)
        self._links = 0
        self._number = 0
        self._redis: Redis | None = None
        self._task: asyncio.Task[None] | None = None

    def begin(self, rate: float) -> None:
        """Publish ``rate`` messages a second from now on."""
        self._task = asyncio.create_task(self._run(1 / rate))

    async def end(self) -> dict[str, tuple[str, int]]:
        """Publish no more; gives sender and number of a last message to each namespace."""
        await self._end()
        return {name: await self._publish(name) for name in self._namespaces}

    async def stop(self) -> None:
        """Publish no more, and disconnect."""
        await self._end()
        await self._disconnect()

    async def _end(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _disconnect(self) -> None:
        redis, self._redis = self._redis, None
        if redis is not None:
            with contextlib.suppress(RedisError, OSError):
                await redis.aclose()

    async def _run(self, pause: float) -> None:
        while True:
            await asyncio.shield(self._publish(self._random.choice(self._namespaces)))
            await asyncio.sleep(pause)

    async def _publish(self, namespace: str) -> tuple[str, int]:
        if self._redis is None:
            self._links += 1
            self._redis = Redis(
                unix_socket_path=str(self._path),
                socket_timeout=TIMEOUT,
                retry=Retry(NoBackoff(), 0),
                single_connection_client=True,
            )
        self._number += 1
        sender, number = f"publisher-{self._links}", self._number
        self._tell(sender, "begun", [PUBLISH, number, namespace, "", time.monotonic()])
        try:
            heard = await self._redis.publish(f"cluster_pool:{{{namespace}}}", f"{sender} {number}")
            outcome = "heard" if heard else "unheard"
        except (RedisError, OSError):
            outcome = "unknown"
            await self._disconnect()
        self._tell(sender, "ended", [number, time.monotonic(), outcome])
        return sender, number

    def _tell(self, sender: str, what: str, fields: list[object]) -> None:
        self._ledger.told(sender, what, fields)
