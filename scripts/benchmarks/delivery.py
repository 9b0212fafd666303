"""CPU per delivered message over both nodes and Redis, beside a bare write(2) per message.

Node A publishes, node B holds the clients, Redis is between. Every round of a scenario follows a
round of the floor, to which it is compared: a shared machine changes its speed within seconds. The
senders wait until everything of a message (or a burst) has arrived before they go on, the floor as
well, and the same client program reads both.
"""

import contextlib
import statistics
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from benchmarks.children import Child
from benchmarks.cluster import NAMESPACE, Clients, Meter, Settings, clients, fault, node
from benchmarks.table import Row
from cluster_pool.embedded import EmbeddedServer

BURST = 16
FLOOR, BROADCAST, BROADCAST_16, TARGETED, GATHERED = NAMES = (
    "floor",
    "broadcast",
    "broadcast-16",
    "targeted",
    "targeted-tasks",
)


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

    async def round(self, messages: int) -> tuple[dict[str, float], str]:
        """CPU of the writing process alone, per write."""
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

    async def round(self, do: str, rounds: int, burst: int) -> tuple[dict[str, float], str]:
        """CPU of the three processes, per message that reached a client."""
        each = rounds * burst
        total = each * self._readers.count
        await self._a.ask(
            "load", rounds=rounds, burst=burst, first=self._first, targeted=do != "broadcast"
        )
        await self._readers.expect(self._readers.count * burst, self._first)
        meter = Meter(self._processes)
        said = await self._a.ask(do, namespace=NAMESPACE)
        report = await self._readers.report(total)
        spent = meter.micros(total)
        self._first += each
        lost = [f"{said['lost']} round did not arrive in time"] if said.pop("lost") else []
        refused = [f"{count:,} sends {word}" for word, count in said.items() if count]
        return spent, fault(report, total, [*lost, *refused])

    async def profile(self, do: str, rounds: int, burst: int, path: str) -> None:
        """A round under cProfile in both nodes, written to ``path-A`` and ``path-B``."""
        for child in (self._a, self._b):
            await child.ask("profile")
        await self.round(do, rounds, burst)
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
    """The rows of the wanted scenarios; the floor is always among them."""
    work = {
        BROADCAST: ("broadcast", settings.messages, 1),
        BROADCAST_16: ("broadcast", settings.bursts, BURST),
        TARGETED: ("targeted", settings.sends, 1),
        GATHERED: ("gathered", settings.sends, 1),
    }
    chosen = {name: work[name] for name in work if name in wanted}
    results = {name: Result() for name in (FLOOR, *chosen)}
    async with bare_writes(settings) as floor, _pair(settings, loop) as pair:

        async def floor_round() -> dict[str, float]:
            spent, wrong = await floor.round(settings.messages)
            results[FLOOR].wrong = results[FLOOR].wrong or wrong
            return spent

        for at in range(settings.rounds + 1):
            tell(f"delivery, {loop}: round {at} of {settings.rounds}" if at else "warming up")
            if not chosen:
                results[FLOOR].rounds.append(await floor_round())
            for name, (do, rounds, burst) in chosen.items():
                bare = await floor_round()
                spent, wrong = await pair.round(do, rounds, burst)
                result = results[name]
                result.wrong = result.wrong or wrong
                if at:
                    results[FLOOR].rounds.append(bare)
                    result.rounds.append(spent)
                    result.floors.append(sum(bare.values()))
        if settings.profile:
            for name, (do, rounds, burst) in chosen.items():
                tell(f"delivery, {loop}: profiling {name}")
                await pair.profile(do, rounds, burst, f"{settings.profile}/{name}-{loop}")
    return _rows(settings, loop, results)


def _rows(settings: Settings, loop: str, results: dict[str, Result]) -> list[Row]:
    count = f"{settings.connections:,}"
    texts = {
        FLOOR: f"floor: bare write(2) to {count} sockets",
        BROADCAST: f"broadcast to {count} clients of another node, one at a time",
        BROADCAST_16: f"the same, {BURST} at once",
        TARGETED: f"sends to {count} ids of another node, all at once (`send_nowait`)",
        GATHERED: "the same, a task for each (`gather` of `send`)",
    }
    return [
        Row(
            texts[name],
            "µs",
            result.sums(),
            loop="" if name == FLOOR else loop,
            floors=result.floors,
            wrong=result.wrong,
            note="CPU of the writing process per write" if name == FLOOR else "CPU per delivery",
            parts={} if name == FLOOR else result.parts(),
        )
        for name, result in results.items()
    ]
