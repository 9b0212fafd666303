"""The costs of a history in Redis: CPU and bytes of a message with one and without, sent alone and
a hundred at once; and the cost of rules for other namespaces where there is none.

The subscriber is a node in this process; each round with a history is followed by one without.
"""

import asyncio
import contextlib
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from redis.asyncio import Redis

from cluster_pool import ClusterPool, Connection, History, Publisher
from tools.bench.payloads import SIZE, member_id, payload
from tools.bench.stage import Meter, Settings, Tell
from tools.bench.table import Row
from tools.harness.servers import RedisServer

KEPT, PLAIN, STORED = "kept", "plain", "stored-"
"""Namespaces: one with a history whose bounds are reached, one without, and for each work one that
keeps everything."""
RULES = {
    KEPT: History(replay_targeted_without_user=True),
    f"{STORED}*": History(
        messages=10**6, seconds=3600, bytes=1 << 30, replay_targeted_without_user=True
    ),
}
OTHER_RULES = {"other-*": History(), "another:*": History(messages=50)}
STREAM = "cluster_pool:{{{}}}:history"
IDS = 100
ARRIVAL = 20.0
SHARE = 5
"""A hundred times as many messages would take as long in batches of a hundred."""


@dataclass(frozen=True)
class Work:
    """One way to send.

    Attributes:
        batch: messages that are sent at once.
        over: bytes that a message may take beside its payload and its id.
    """

    what: str
    targeted: bool
    batch: int
    over: int

    @property
    def allowed(self) -> int:
        """Bytes of Redis that a message of this bench may take."""
        return SIZE + self.over + (len(member_id(0)) if self.targeted else 0)

    async def send(self, publisher: Publisher, namespace: str, count: int) -> Counter[str]:
        """Send so many; the results, by their names."""
        results: Counter[str] = Counter()
        for first in range(0, count, self.batch):
            sent = [self._one(publisher, namespace, at) for at in range(first, first + self.batch)]
            found = [await sent[0]] if self.batch == 1 else await asyncio.gather(*sent)
            results.update(map(str, found))
        return results

    async def _one(self, publisher: Publisher, namespace: str, at: int) -> bool:
        if self.targeted:
            id = member_id(at % IDS)
            return bool(await publisher.send(namespace, id, payload(at, id).decode()))
        return bool(await publisher.broadcast_message(namespace, payload(at).decode()))


WORKS = (
    Work("broadcasts, one at a time", False, 1, 60),
    Work("broadcasts, 100 at once", False, 100, 60),
    Work("targeted messages, one at a time", True, 1, 130),
    Work("targeted messages, 100 at once", True, 100, 60),
)


@dataclass
class Stand:
    """A server, a node with members, and a sender; what they heard is counted."""

    redis: RedisServer
    publisher: Publisher
    heard: Counter[str] = field(default_factory=Counter)
    wrong: str = ""

    async def round(self, work: Work, namespace: str, count: int) -> dict[str, float]:
        """CPU in µs for each of so many messages, of this process and of Redis."""
        self.heard.clear()
        meter = Meter({"node": os.getpid(), "Redis": self.redis.pid})
        results = await work.send(self.publisher, namespace, count)
        expected = count if work.targeted else count * IDS
        await _until(lambda: self.heard[namespace] >= expected)
        spent = meter.micros(count)
        if results != {"True": count} or self.heard[namespace] != expected:
            heard = self.heard[namespace]
            self.wrong = f"WRONG: {heard:,} of {expected:,} heard, sent: {dict(results)}"
        return spent


async def _until(done: Any) -> None:
    ends = time.monotonic() + ARRIVAL
    while not done() and time.monotonic() < ends:  # noqa: ASYNC110  # nothing tells it
        await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def stand(rules: dict[str, History], namespaces: Sequence[str]) -> AsyncIterator[Stand]:
    """A node with these rules, and with members in these namespaces."""
    with RedisServer() as redis:
        async with ClusterPool(redis.url, history=rules) as pool, Publisher(redis.url) as publisher:
            made = Stand(redis, publisher)

            def hear(namespace: str, message: str | bytes) -> None:
                made.heard[namespace] += 1

            for namespace in namespaces:
                ends = (partial(hear, namespace), lambda code, reason: None)
                ids = [member_id(at) for at in range(IDS)]
                members = [Connection(id, namespace, ends) for id in ids]
                await asyncio.gather(*[pool.new_connection(member) for member in members])
            yield made


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """CPU, then bytes, then what those pay that have no history."""
    made = []
    stored = [f"{STORED}{at}" for at in range(len(WORKS))]
    async with stand(RULES, [KEPT, PLAIN, *stored]) as here:
        for work in WORKS:
            tell(f"histories: {work.what}")
            made.append(await _cpu(here, work, settings))
        for work, namespace in zip(WORKS, stored, strict=True):
            tell(f"histories: bytes of {work.what}")
            made.append(await _bytes(here, work, namespace, settings))
    async with stand(OTHER_RULES, [PLAIN]) as ruled, stand({}, [PLAIN]) as free:
        for work in WORKS:
            tell(f"histories: {work.what} beside rules of others")
            made.append(await _beside(ruled, free, work, settings))
    return made


def _count(work: Work, settings: Settings) -> int:
    """Messages of a round."""
    return settings.single_sends if work.batch == 1 else settings.single_sends * SHARE


async def _cpu(here: Stand, work: Work, settings: Settings) -> Row:
    count = _count(work, settings)
    kept, plain = [], []
    for at in range(settings.rounds + 1):
        with_one = (await here.round(work, KEPT, count))["Redis"]
        without = (await here.round(work, PLAIN, count))["Redis"]
        if at:
            kept.append(with_one)
            plain.append(without)
    return Row(
        *(f"Redis, {work.what}, with a history", "µs", kept),
        floors=plain,
        wrong=here.wrong,
        note=f"CPU per message; the floor is without one, of {min(plain):.2f} to {max(plain):.2f}; "
        f"minima {min(kept) / min(plain):.2f} ×",
    )


async def _bytes(here: Stand, work: Work, namespace: str, settings: Settings) -> Row:
    count = _count(work, settings) * SHARE
    async with Redis.from_url(here.redis.url) as admin:
        await here.round(work, namespace, count)
        size = await admin.memory_usage(STREAM.format(namespace), samples=0)
    return Row(
        *(f"Redis, {work.what}: bytes kept", "bytes", [(size or 0) / count]),
        wrong=here.wrong,
        note=f"each of a payload of {SIZE}; MEMORY USAGE of {count:,}; aim ≤ {work.allowed}",
    )


async def _beside(ruled: Stand, free: Stand, work: Work, settings: Settings) -> Row:
    """The cost of rules for other namespaces, by the least of both."""
    count = _count(work, settings)
    spent: dict[int, list[float]] = {0: [], 1: []}
    for at in range(2 * settings.rounds + 1):
        for which, here in ((0, ruled), (1, free)) if at % 2 else ((1, free), (0, ruled)):
            cpu = sum((await here.round(work, PLAIN, count)).values())
            if at:
                spent[which].append(cpu)
    least, floor = min(spent[0]), min(spent[1])
    return Row(
        *(f"{work.what} without a history, beside rules for others", "×", [least / floor]),
        wrong=ruled.wrong or free.wrong,
        note=f"CPU per message of sender, node and Redis to that without any rule; minima of "
        f"{2 * settings.rounds} rounds: {least:.1f} and {floor:.1f} µs",
    )
