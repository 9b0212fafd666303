"""A client that knows no node and sends PUBLISH, as redis-cli does; never through a proxy."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import AskError, ClusterDownError, MovedError, RedisError

from tools.chaos.books import PUBLISH
from tools.chaos.ledger import Ledger

TIMEOUT = 2.0
AGAIN = 0.1
UNHEARD, UNKNOWN = "unheard", "unknown"


class RawPublisher:
    """Publishes numbered messages one after another.

    Each link has a sender's name of its own: what a frozen Redis has not read of one link it may
    read after what came over the next, so there is an order within a link alone.
    """

    def __init__(
        self,
        path_of: Callable[[str], Path],
        sharded: bool,
        ledger: Ledger,
        namespaces: list[str],
        seed: int,
    ) -> None:
        self._path_of = path_of
        self._command = "SPUBLISH" if sharded else "PUBLISH"
        self._nobody = UNKNOWN if sharded else UNHEARD
        """The meaning of 0 listeners: a former primary counts its own alone, and hands on."""
        self._ledger = ledger
        self._namespaces = namespaces
        self._random = random.Random(seed)
        self._links = 0
        self._number = 0
        self._redis: dict[str, Redis] = {}
        self._using = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def begin(self, rate: float) -> None:
        """Publish ``rate`` messages a second from now on."""
        self._task = asyncio.create_task(self._run(1 / rate))

    async def end(self) -> dict[str, tuple[str, int]]:
        """Publish no more; gives sender and number of a last message to each namespace."""
        await self._end()
        return {name: await self._publish(name) for name in self._namespaces}

    async def renew(self) -> None:
        """Ask anew where each channel is: a former primary may take messages that reach nobody."""
        async with self._using:
            await self._disconnect()

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
        redis, self._redis = self._redis, {}
        for one in redis.values():
            with contextlib.suppress(RedisError, OSError):
                await one.aclose()

    async def _run(self, pause: float) -> None:
        while True:
            await asyncio.shield(self._publish(self._random.choice(self._namespaces)))
            await asyncio.sleep(pause)

    async def _publish(self, namespace: str) -> tuple[str, int]:
        async with self._using:
            return await self._publish_one(namespace)

    async def _publish_one(self, namespace: str) -> tuple[str, int]:
        channel = f"cluster_pool:{{{namespace}}}"
        if namespace not in self._redis:
            await self._connect(namespace, channel)
        self._number += 1
        sender, number = f"publisher-{self._links}", self._number
        self._tell(sender, "begun", [PUBLISH, number, namespace, "", time.monotonic()])
        try:
            words = (self._command, channel, f"{sender} {number}")
            heard = await self._redis[namespace].execute_command(*words)
            outcome = "heard" if heard else self._nobody
            if not heard and self._nobody == UNKNOWN:
                await self._disconnect()
        except (MovedError, AskError, ClusterDownError):  # it was not carried out
            outcome = UNHEARD
            await self._disconnect()
        except (RedisError, OSError):
            outcome = UNKNOWN
            await self._disconnect()
        self._tell(sender, "ended", [number, time.monotonic(), outcome])
        return sender, number

    async def _connect(self, namespace: str, channel: str) -> None:
        while True:
            try:
                path = await asyncio.to_thread(self._path_of, channel)
                break
            except (LookupError, RedisError):  # nobody has it now
                await asyncio.sleep(AGAIN)
        self._links += 1
        self._redis[namespace] = Redis(
            unix_socket_path=str(path),
            socket_timeout=TIMEOUT,
            retry=Retry(NoBackoff(), 0),
            single_connection_client=True,
        )

    def _tell(self, sender: str, what: str, fields: list[object]) -> None:
        self._ledger.told(sender, what, fields)
