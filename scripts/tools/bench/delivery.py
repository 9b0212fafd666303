"""CPU per delivered message over both nodes and Redis, beside a bare write(2) per message.

Node A publishes, node B holds the clients, Redis is between. Every round of a scenario follows a
round of the floor, to which it is compared: a shared machine changes its speed within seconds. The
senders wait until everything of a message (or a burst) has arrived before they go on, the floor as
well, and the same client program reads both.

What a write costs depends on when the socket last had one. After a pause that is longer than TCP's
retransmission timeout, Linux acknowledges the next 16 segments at once (``TCP_MAX_QUICKACKS`` and
``tcp_event_data_recv`` in its ``tcp_input.c``), on loopback at the writer's expense, and later ones
at the reader's. So a round is of either kind and never of both: each begins after a rest and ends
within those 16, or another 16 go before it, uncounted, and it is a stream.
"""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace

from cluster_pool.embedded import EmbeddedServer
from tools.bench.children import Child
from tools.bench.cluster import NAMESPACE, Clients, Meter, Settings, clients, fault, node
from tools.bench.table import Row

BURST = 16
QUICK = 16
"""Segments after a pause that are acknowledged at once."""
REST = 0.3
"""Seconds that are such a pause: more than the least retransmission timeout, which is 0.2."""
FLOOR, BROADCAST, BROADCAST_16, BROADCAST_STREAM, TARGETED, TARGETED_STREAM, GATHERED = NAMES = (
    "floor",
    "broadcast",
    "broadcast-16",
    "broadcast-stream",
    "targeted",
    "targeted-stream",
    "targeted-tasks",
)


@dataclass(frozen=True)
class Work:
    """What a round sends: so many times so many messages to each client, one after another."""

    do: str
    rounds: int
    burst: int = 1
    stream: bool = False


@dataclass
class Result:
    """The rounds of one scenario: µs per message by process, and the floor before each."""

    rounds: list[dict[str, float]] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    wrong: str = ""

    def sums(self) -> list[float]:
        return [sum(parts.values()) for parts in self.rounds]

    def parts(self) -> dict[str, float]:
        return {
            name: statistics.median(parts[name] for parts in self.rounds) for name in self.rounds[0]
        }


class Floor:
    """A process that only writes, and the bare sockets it writes to."""

    def __init__(self, writer: Child, readers: Clients) -> None:
        self._writer = writer
        self._readers = readers
        self._first = 0

    async def round(self, messages: int, *, stream: bool = False) -> tuple[dict[str, float], str]:
        """CPU of the writing process alone, per write; after a rest, or in a stream."""
        await asyncio.sleep(REST)
        before = (await self._write(QUICK))[1] if stream else ""
        spent, wrong = await self._write(messages)
        return spent, before or wrong

    async def _write(self, messages: int) -> tuple[dict[str, float], str]:
        total = messages * self._readers.count
        await self._readers.expect(self._readers.count, self._first)
        meter = Meter({"writer": self._writer.pid})
        await self._writer.ask("write", count=messages, first=self._first)
        spent = meter.micros(total)
        self._first += messages
        return spent, fault(await self._readers.report(total), total, ())


class Pair:
    """Node A, node B with the clients, and Redis."""

    def __init__(self, a: Child, b: Child, redis: int, readers: Clients) -> None:
        self._a = a
        self._b = b
        self._processes = {"A": a.pid, "B": b.pid, "Redis": redis}
        self._readers = readers
        self._first = 0

    async def round(self, work: Work) -> tuple[dict[str, float], str]:
        """CPU of the three processes, per message that reached a client."""
        await asyncio.sleep(REST)
        before = (await self._send(replace(work, rounds=QUICK)))[1] if work.stream else ""
        spent, wrong = await self._send(work)
        return spent, before or wrong

    async def _send(self, work: Work) -> tuple[dict[str, float], str]:
        each = work.rounds * work.burst
        total = each * self._readers.count
        targeted = work.do != "broadcast"
        await self._a.ask(
            "load", rounds=work.rounds, burst=work.burst, first=self._first, targeted=targeted
        )
        await self._readers.expect(self._readers.count * work.burst, self._first)
        meter = Meter(self._processes)
        said = await self._a.ask(work.do, namespace=NAMESPACE)
        report = await self._readers.report(total)
        spent = meter.micros(total)
        self._first += each
        lost = [f"{said['lost']} round did not arrive in time"] if said.pop("lost") else []
        refused = [f"{count:,} sends {word}" for word, count in said.items() if count]
        return spent, fault(report, total, [*lost, *refused])

    async def profile(self, work: Work, path: str) -> None:
        """A round under cProfile in both nodes, written to ``path-A`` and ``path-B``."""
        for child in (self._a, self._b):
            await child.ask("profile")
        await self.round(work)
        for name, child in (("A", self._a), ("B", self._b)):
            await child.ask("profile", path=f"{path}-{name}.pstats")


@contextlib.asynccontextmanager
async def bare_writes(settings: Settings) -> AsyncIterator[Floor]:
    """The floor, with as many sockets as there are connections."""
    async with clients() as readers:
        gate = readers.gate
        writer = await Child.start("writer", str(gate.read_end), fds=(gate.read_end,))
        try:
            writer.tell("accept", count=settings.connections)
            await readers.connect(writer.hello["port"], "", settings.connections)
            await writer.answer()
            yield Floor(writer, readers)
        finally:
            await writer.stop()


@contextlib.asynccontextmanager
async def _pair(settings: Settings, loop: str) -> AsyncIterator[Pair]:
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(EmbeddedServer())
        b = await stack.enter_async_context(node(redis.url, "B", loop))
        readers = await stack.enter_async_context(clients())
        a = await stack.enter_async_context(node(redis.url, "A", loop, readers.gate))
        await readers.connect(b.hello["port"], NAMESPACE, settings.connections)
        await a.ask("know", first=0, count=settings.connections)
        yield Pair(a, b, redis.pid, readers)


async def measure(
    settings: Settings, loop: str, wanted: set[str], tell: Callable[[str], None]
) -> list[Row]:
    """The rows of the wanted scenarios; their floors are always among them."""
    works = {
        BROADCAST: Work("broadcast", settings.messages),
        BROADCAST_16: Work("broadcast", settings.bursts, BURST),
        BROADCAST_STREAM: Work("broadcast", settings.messages, stream=True),
        TARGETED: Work("targeted", settings.messages),
        TARGETED_STREAM: Work("targeted", settings.messages, stream=True),
        GATHERED: Work("gathered", settings.messages),
    }
    chosen = {name: works[name] for name in works if name in wanted}
    results = {name: Result() for name in chosen}
    floors = {stream: Result() for stream in (False, True)}
    async with bare_writes(settings) as floor, _pair(settings, loop) as pair:

        async def floor_round(stream: bool, counted: bool) -> float:
            spent, wrong = await floor.round(settings.messages, stream=stream)
            floors[stream].wrong = floors[stream].wrong or wrong
            if counted:
                floors[stream].rounds.append(spent)
            return sum(spent.values())

        for at in range(settings.rounds + 1):
            tell(f"delivery, {loop}: round {at} of {settings.rounds}" if at else "warming up")
            if not chosen:
                await floor_round(False, at > 0)
                await floor_round(True, at > 0)
            for name, work in chosen.items():
                bare = await floor_round(work.stream, at > 0)
                spent, wrong = await pair.round(work)
                result = results[name]
                result.wrong = result.wrong or wrong
                if at:
                    result.rounds.append(spent)
                    result.floors.append(bare)
        if settings.profile:
            for name, work in chosen.items():
                tell(f"delivery, {loop}: profiling {name}")
                await pair.profile(work, f"{settings.profile}/{name}-{loop}")
    return [*_floor_rows(settings, floors), *_rows(settings, loop, results)]


def _floor_rows(settings: Settings, floors: dict[bool, Result]) -> list[Row]:
    return [
        Row(
            f"floor: bare write(2) to {settings.connections:,} sockets, "
            f"{'in a stream' if stream else 'after quiet'}",
            "µs",
            result.sums(),
            wrong=result.wrong,
            note="CPU of the writing process per write",
        )
        for stream, result in floors.items()
        if result.rounds
    ]


def _rows(settings: Settings, loop: str, results: dict[str, Result]) -> list[Row]:
    count = f"{settings.connections:,}"
    texts = {
        BROADCAST: f"broadcast to {count} clients of another node, one at a time",
        BROADCAST_16: f"the same, {BURST} at once",
        BROADCAST_STREAM: "the same, one at a time, in a stream",
        TARGETED: f"sends to {count} ids of another node, all at once (`send_nowait`)",
        TARGETED_STREAM: "the same, in a stream",
        GATHERED: "the same, a task for each (`gather` of `send`)",
    }
    return [
        Row(
            texts[name],
            "µs",
            result.sums(),
            loop=loop,
            floors=result.floors,
            wrong=result.wrong,
            note="CPU per delivery",
            parts=result.parts(),
        )
        for name, result in results.items()
    ]
