"""CPU of the positions and receipts of connections in namespaces with a history, beside the CPU of
what they are sent: each gets one broadcast a second.

Two ``serve`` nodes, each with a Redis of its own, hold as many clients; one keeps a history, and
they take turns. A turn is as long as the interval of the keepalive, so each connection is pinged
once in it, as everywhere.
"""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from cluster_pool import Publisher
from tools.bench.payloads import payload
from tools.bench.stage import Clients, Meter, Settings, Tell, clients, fault
from tools.bench.table import Row
from tools.harness.nodes import NodeProcess, in_thread
from tools.harness.programs import python_path
from tools.harness.servers import RedisServer

ROOM = TOGETHER = 50
"""Clients of a room, and clients that connect at a time; a room may be a multiple of that."""
TURN = 20
"""Seconds; the interval of the keepalive."""
TICKS = 20
"""Portions of a second; each room has its turn in one of them."""
DESCRIPTORS = 500
"""Descriptors of a node beside its connections."""


@dataclass
class Side:
    """A node, its clients, and a sender to them."""

    node: NodeProcess
    redis: RedisServer
    readers: Clients
    publisher: Publisher
    rooms: list[str]
    first: int = 0
    wrong: str = ""
    spent: list[dict[str, float]] = field(default_factory=list)

    async def turn(self, seconds: int) -> dict[str, float]:
        """CPU in µs for each delivery, of the node and of Redis."""
        total = seconds * self.readers.count
        await self.readers.expect(0, self.first)
        meter = Meter({"node": self.node.process.pid, "Redis": self.redis.pid})
        loop = asyncio.get_running_loop()
        due = loop.time()
        for at in range(seconds * TICKS):
            text = payload(self.first + at // TICKS).decode()
            rooms = self.rooms[at % TICKS :: TICKS]
            await asyncio.gather(*[self.publisher.broadcast_message(one, text) for one in rooms])
            due += 1 / TICKS
            await asyncio.sleep(due - loop.time())
        self.first += seconds
        spent = meter.micros(total)
        self.wrong = self.wrong or fault(await self.readers.report(total), total)
        return spent


@contextlib.asynccontextmanager
async def side(settings: Settings, *options: str) -> AsyncIterator[Side]:
    """A node with these options and all its clients."""
    count = settings.accounts
    limit = count + DESCRIPTORS
    with RedisServer() as redis:
        start = lambda: NodeProcess(  # noqa: E731
            redis.url,
            *options,
            environment={"PYTHONPATH": python_path()},
            descriptors=(limit, limit),
        )
        with await in_thread(start) as node:
            async with clients() as readers, Publisher(redis.url) as publisher:
                rooms = [f"room-{at}" for at in range(-(-count // ROOM))]
                for first in range(0, count, TOGETHER):  # in between the clients answer pings
                    path, some = f"/ws/{rooms[first // ROOM]}", min(TOGETHER, count - first)
                    await readers.open(node.port, path, some, first=first)
                yield Side(node, redis, readers, publisher, rooms)


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """Both nodes in turn; the first turns are not counted."""
    tell(f"accounts: {settings.accounts:,} connections to each of two nodes")
    async with side(settings, "--history", "room-*=1000") as kept, side(settings) as plain:
        for at in range(settings.fresh_rounds + 1):
            tell(f"accounts: round {at} of {settings.fresh_rounds}" if at else "warming up")
            for one in (kept, plain):
                spent = await one.turn(TURN)
                if at:
                    one.spent.append(spent)
    return rows(settings, kept.spent, plain.spent, kept.wrong or plain.wrong)


def rows(
    settings: Settings,
    kept: list[dict[str, float]],
    plain: list[dict[str, float]],
    wrong: str = "",
) -> list[Row]:
    """CPU with a history and without one, and the difference of both."""
    made = [
        Row(
            f"CPU per delivery, {settings.accounts:,} connections in rooms of {ROOM} at one "
            f"broadcast a second, {how}",
            "µs",
            [sum(parts.values()) for parts in spent],
            wrong=wrong,
            parts={name: statistics.median(parts[name] for parts in spent) for name in spent[0]},
        )
        for how, spent in (("with a history", kept), ("without one", plain))
    ]
    pairs = zip(made[0].samples, made[1].samples, strict=True)
    more = [100 * (one / other - 1) for one, other in pairs]
    what = "positions, receipts and the recording, of the CPU of delivery"
    return [*made, Row(what, "%", more, note="aim ≤ 10 for positions and receipts")]
