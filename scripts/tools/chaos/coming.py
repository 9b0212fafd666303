"""Clients of the sparse namespaces come and go. See :mod:`tools.chaos.clients`."""

import asyncio
import random
import time

from tools.chaos import sparse
from tools.chaos.client import Client


class Visits:
    """Lets clients go, come back and change places, each at its own times.

    Before its namespace is left alone a client goes and comes back once more, and then stays: what
    Redis keeps of a namespace without members, it keeps for a minute.
    """

    HERE = (2.0, 40.0)
    AWAY = ((0.1, 0.6), (0.5, 3.0), (3.0, 10.0))
    """Seconds; the linger of a subscription is 1."""
    RELOAD = 3.0
    HOPS = 0.3
    """The share of those who change places without leaving first."""

    def __init__(self) -> None:
        self._going_on = asyncio.Event()
        self._under_way = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, client: Client) -> None:
        """Let this client come and go."""
        self._tasks.add(asyncio.create_task(self._visit(client)))

    def go_on(self, yes: bool) -> None:
        """Whether clients may begin to go or to come."""
        if yes:
            self._going_on.set()
        else:
            self._going_on.clear()

    @property
    def under_way(self) -> int:
        """How many are about to leave at this moment."""
        return self._under_way

    def _stay(self, namespace: str, now: float) -> float:
        """For how many seconds from now on a client stays."""
        sleep = sparse.next_sleep(namespace, now)
        if sleep <= now:
            return sleep + sparse.SLEEP - now + random.uniform(*self.HERE)
        return min(random.uniform(*self.HERE), sleep - now + random.uniform(0, self.RELOAD))

    async def _visit(self, client: Client) -> None:
        while True:
            await asyncio.sleep(self._stay(client.namespace, time.monotonic()))
            await self._going_on.wait()
            if sparse.asleep(client.namespace, time.monotonic()) and random.random() < 0.5:
                await self._reload(client)
                continue
            if random.random() < self.HOPS and client.open:
                client.move()
                continue
            await self._leave(client)
            await asyncio.sleep(random.uniform(*random.choice(self.AWAY)))
            await self._going_on.wait()
            client.move()

    async def _leave(self, client: Client) -> None:
        self._under_way += 1
        try:
            await client.leave()
        finally:
            self._under_way -= 1

    async def _reload(self, client: Client) -> None:
        """Go, and come back to the same node soon: its channel is still subscribed then."""
        node = client.newest.node if client.newest is not None else ""
        await self._leave(client)
        await asyncio.sleep(random.uniform(*self.AWAY[0]))
        client.move(node)
