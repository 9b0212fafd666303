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
from tools.bench.stage import Settings, Tell, clients, node
from tools.bench.table import Row
from tools.harness.internals import Keys
from tools.harness.programs import Program
from tools.harness.servers import RedisServer

POLL = 0.02
GIVE_UP = 40.0
LEASE, HEARTBEAT = 10.0, 3.0


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """Until count and members leave the killed node out, and until Redis holds nothing of it."""
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(RedisServer())
        await stack.enter_async_context(node(redis.url, "survivor", loop))
        ready = time.monotonic() + LEASE + 1
        readers = await stack.enter_async_context(clients())
        publisher = await stack.enter_async_context(Publisher(redis.url))
        admin = await stack.enter_async_context(Redis.from_url(redis.url))
        killings = []
        for at in range(settings.victims):
            victim = await stack.enter_async_context(node(redis.url, f"victim-{at}", loop))
            path = f"/ws/namespace-{at}"
            await readers.open(victim.hello["port"], path, settings.connections)
            witness = Witness(publisher, admin, f"namespace-{at}")
            killings.append(_killed(victim, settings.connections, witness))
        tell("recovery: waiting until the survivor has held its lease for once its length")
        await asyncio.sleep(ready - time.monotonic())
        tell(f"recovery: killing {settings.victims} nodes")
        found = await asyncio.gather(*killings)
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
        self._keys = (Keys().members(namespace), Keys().owners(namespace))

    async def seen(self) -> tuple[int, int]:
        """Members by count, and one by one."""
        listed = [one async for one in self._publisher.members(self._namespace)]
        return await self._publisher.count(self._namespace), len(listed)

    async def visible(self) -> bool:
        """Whether any reader still sees a member."""
        return any(await self.seen())

    async def stored(self) -> bool:
        """Whether Redis still holds a claim or a count."""
        return bool(await self._admin.exists(*self._keys))


async def _killed(victim: Program, members: int, witness: Witness) -> tuple[float, float, str]:
    before = await witness.seen()
    wrong = "" if before == (members, members) else f"WRONG: {before} members before the kill"
    await asyncio.sleep(random.uniform(0, HEARTBEAT))
    killed = time.monotonic()
    await victim.kill()
    unseen, removed = await asyncio.gather(_until(witness.visible), _until(witness.stored))
    if max(unseen, removed) - killed > GIVE_UP:
        wrong = f"WRONG: still there after {GIVE_UP:g} s"
    return unseen - killed, removed - killed, wrong


async def _until(still: Callable[[], Awaitable[bool]]) -> float:
    """When it is so no more, or it is given up."""
    deadline = time.monotonic() + GIVE_UP
    while await still() and time.monotonic() <= deadline:  # noqa: ASYNC110  # others
        await asyncio.sleep(POLL)
    return time.monotonic()
