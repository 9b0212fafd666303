"""Seconds from the kill of a node until nothing of it is left.

Several nodes with a namespace each are killed at random moments between two heartbeats, while one
lives on; it was up for longer than a lease before, as a node must be to judge others.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable

from redis.asyncio import Redis

from cluster_pool import Publisher
from cluster_pool.core.keys import Keys
from cluster_pool.embedded import EmbeddedServer
from tools.bench.children import Child
from tools.bench.cluster import Settings, clients, node
from tools.bench.table import Row

POLL = 0.02
GIVE_UP = 40.0
HEARTBEAT = 3.0


async def measure(settings: Settings, loop: str, tell: Callable[[str], None]) -> list[Row]:
    """Until count and members leave the killed node out, and until Redis holds nothing of it."""
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(EmbeddedServer())
        await stack.enter_async_context(node(redis.url, "survivor", loop))
        ready = time.monotonic() + settings.lease + 1
        peers = await stack.enter_async_context(clients())
        publisher = await stack.enter_async_context(Publisher(redis.url))
        admin = await stack.enter_async_context(Redis.from_url(redis.url))
        victims = []
        for at in range(settings.victims):
            child = await stack.enter_async_context(node(redis.url, f"victim-{at}", loop))
            await peers.connect(child.hello["port"], f"ghosts-{at}", settings.connections)
            victims.append(child)
        tell("ghosts: waiting until the survivor has held its lease for once its length")
        await asyncio.sleep(ready - time.monotonic())
        tell(f"ghosts: killing {settings.victims} nodes")
        found = await asyncio.gather(
            *[
                _one(child, settings, Witness(publisher, admin, f"ghosts-{at}"))
                for at, child in enumerate(victims)
            ]
        )
    wrong = next((text for *_, text in found if text), "")
    note = f"{settings.victims} nodes with {settings.connections:,} members killed"
    what = "from kill -9 until its members are out of"
    return [
        Row(f"{what} count and members", "s", [one for one, _, _ in found], wrong=wrong, note=note),
        Row(f"{what} the registry", "s", [two for _, two, _ in found], wrong=wrong, note=note),
    ]


class Witness:
    """What others see of one namespace."""

    def __init__(self, publisher: Publisher, admin: Redis, namespace: str) -> None:
        self._publisher = publisher
        self._admin = admin
        self._namespace = namespace
        keys = Keys()
        self._keys = (keys.members(namespace), keys.owners(namespace))

    async def count(self) -> int:
        """Members by count."""
        return await self._publisher.count(self._namespace)

    async def listed(self) -> int:
        """Members one by one."""
        return len([one async for one in self._publisher.members(self._namespace)])

    async def visible(self) -> bool:
        """Whether any reader still sees a member."""
        return await self.count() > 0 or await self.listed() > 0

    async def stored(self) -> bool:
        """Whether Redis still holds a claim or a count."""
        return bool(await self._admin.exists(*self._keys))


async def _one(child: Child, settings: Settings, witness: Witness) -> tuple[float, float, str]:
    wrong = ""
    before = (await witness.count(), await witness.listed())
    if before != (settings.connections, settings.connections):
        wrong = f"WRONG: {before} members before the kill"
    await asyncio.sleep(random.uniform(0, HEARTBEAT))
    killed = time.monotonic()
    await child.kill()
    unseen, removed = await asyncio.gather(_until(witness.visible), _until(witness.stored))
    if unseen is None or removed is None:
        wrong = f"WRONG: still there after {GIVE_UP:g} s"
    return (unseen or killed + GIVE_UP) - killed, (removed or killed + GIVE_UP) - killed, wrong


async def _until(still: Callable[[], Awaitable[bool]]) -> float | None:
    deadline = time.monotonic() + GIVE_UP
    while await still():
        if time.monotonic() > deadline:
            return None
        await asyncio.sleep(POLL)
    return time.monotonic()
