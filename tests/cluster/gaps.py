"""A node behind a network that is cut, and what its members get."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from cluster_pool import Gap, History, Publisher
from cluster_pool.testing import FakeWebSocket
from tests.clusters import PATIENT, Pool
from tests.servers import RedisServer
from tests.support import eventually

ROOMS = {"room:*": History(messages=200_000)}
"""More than is sent while a busy machine makes its links again."""
SECRET = "a secret of more than sixteen bytes"


def gaps_of(pool: Pool) -> list[Gap]:
    """All gaps from now on."""
    gaps: list[Gap] = []
    pool.on("gap", gaps.append)
    return gaps


def missed(gaps: list[Gap], namespace: str) -> int:
    """The messages of a namespace that gaps have named."""
    return sum(gap.namespaces.get(namespace, 0) for gap in gaps)


def numbers_in(socket: FakeWebSocket) -> list[int]:
    """The numbers of the messages that a client got."""
    return [int(str(text)) for text in socket.sent]


def recovery_in(pool: Pool) -> Any:
    """The recovery of the shard that has the room."""
    return pool._parts.backplane.topology.of("room:7").receiver.recovery


def hold_up(recovery: Any) -> tuple[asyncio.Event, asyncio.Event]:
    """Keep what is read of a history back: an event that tells of it, and one that ends it."""
    asked, reading = asyncio.Event(), asyncio.Event()
    read = recovery._page

    async def later(*arguments: Any) -> Any:
        page = await read(*arguments)
        asked.set()
        await reading.wait()
        return page

    recovery._page = later
    return asked, reading


@contextlib.asynccontextmanager
async def far_node(
    redis: RedisServer, **options: Any
) -> AsyncIterator[tuple[Any, Pool, Publisher]]:
    """A node behind a network of its own, and a publisher beside Redis."""
    options = {"timing": PATIENT, "history": ROOMS, **options}
    async with (
        redis.network() as proxy,
        Pool(proxy.url, node_id="far", **options) as far,
        Publisher(redis.url, secret=options.get("secret"), timeout=PATIENT.timeout) as publisher,
    ):
        yield proxy, far, publisher


class Traffic:
    """Numbered messages to some namespaces, from one sender, without a pause."""

    def __init__(self, sender: Any, names: list[str]) -> None:
        self.sent = 0
        self._sender, self._names = sender, names
        self._over = False
        self._task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._over:
            await asyncio.gather(*[self.send(name, self.sent) for name in self._names])
            self.sent += 1

    async def send(self, name: str, number: int) -> Any:
        """Send one message."""
        return await self._sender.broadcast_message(name, str(number))

    async def more(self, rounds: int) -> None:
        """Wait for so many more messages to each namespace."""
        wanted = self.sent + rounds
        await eventually(lambda: self.sent >= wanted or self._task.done(), 60)

    async def through_cuts(self, proxy: Any, node: Pool) -> int:
        """Cut the link of a node three times meanwhile; gives how many were sent to each."""
        for _ in range(3):
            await self.more(4)
            await proxy.refuse()
            await self.more(4)
            await proxy.accept()
            await eventually(lambda: node.ready, 30)
        return await self.end()

    async def end(self) -> int:
        """Send no more; gives how many were sent to each namespace."""
        self._over = True
        await self._task
        return self.sent
