"""CPU per delivered message over both nodes and Redis, beside a bare write(2) per message.

Node A publishes, node B holds the clients, Redis is between. Every round of a scenario follows a
round of the floor, to which it is compared: a shared machine changes its speed within seconds. The
senders wait until everything of a message (or a burst) has arrived before they go on, the floor as
well, and the same client program reads both.

What a write costs depends on when the socket last had one. After a pause that is longer than TCP's
retransmission timeout, Linux acknowledges the next 16 segments at once (``TCP_MAX_QUICKACKS`` and
``tcp_event_data_recv`` in its ``tcp_input.c``), on loopback at the writer's expense, and later ones
at the reader's. So a round begins after a rest and ends within those 16. (Of 16 at once, those who
write each by itself leave that state on the way, which is cheaper.)
"""

import asyncio
import contextlib
import statistics
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field

from tools.bench.payloads import member_id
from tools.bench.stage import Clients, Meter, Settings, Tell, clients, fault, gated, node
from tools.bench.table import Row
from tools.harness.programs import Program
from tools.harness.servers import RedisServer

BURST = 16
REST = 0.3
"""Seconds that are such a pause: more than the least retransmission timeout, which is 0.2."""
FLOOR, BROADCAST, BROADCAST_16, BROADCAST_V1, TARGETED = NAMES = (
    "floor",
    "broadcast",
    "broadcast-16",
    "broadcast-v1",
    "targeted",
)

ABOUT = {
    FLOOR: "A bare write(2) for each message: what the others are compared with.",
    BROADCAST: "CPU per delivery of broadcasts, one at a time.",
    BROADCAST_16: f"The same, {BURST} at once.",
    BROADCAST_V1: "As broadcast, to clients that speak cluster-pool.v1.",
    TARGETED: "CPU per delivery of sends to 1,000 ids at once.",
}


@dataclass(frozen=True)
class Work:
    """The sends of a round: so many times so many messages to each client, one after another."""

    what: str
    do: str
    rounds: int
    burst: int = 1

    def less(self, share: int) -> "Work":
        """One in so many of the rounds, but some."""
        return Work(self.what, self.do, max(1, self.rounds // share), self.burst)


def works(settings: Settings) -> dict[str, Work]:
    """The measured works, by the names of the scenarios."""
    count = f"{settings.connections:,}"
    everyone = f"broadcast to {count} clients of another node"
    return {
        BROADCAST: Work(f"{everyone}, one at a time", "broadcast", settings.messages),
        BROADCAST_16: Work(f"{everyone}, {BURST} at once", "broadcast", settings.bursts, BURST),
        BROADCAST_V1: Work(
            f"{everyone} that speak cluster-pool.v1", "broadcast", settings.messages
        ),
        TARGETED: Work(f"sends to {count} ids, all at once", "targeted", settings.messages),
    }


@dataclass
class Rounds:
    """The rounds of one scenario: µs per message by process, and the floor before each."""

    spent: list[dict[str, float]] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    deliveries: int = 0
    disordered: int = 0
    wrong: str = ""

    def sums(self) -> list[float]:
        """The sums over all processes, by round."""
        return [sum(parts.values()) for parts in self.spent]

    def parts(self) -> dict[str, float]:
        """The medians, by process."""
        names = self.spent[0] if self.spent else ()
        return {name: statistics.median(parts[name] for parts in self.spent) for name in names}


class Floor:
    """A process that only writes, and the bare sockets it writes to."""

    def __init__(self, writer: Program, readers: Clients) -> None:
        self._writer = writer
        self._readers = readers
        self._first = 0

    async def round(self, messages: int, into: Rounds) -> float:
        """CPU of the writing process alone, per write, after a rest."""
        await asyncio.sleep(REST)
        total = messages * self._readers.count
        await self._readers.expect(self._readers.count, self._first)
        meter = Meter({"writer": self._writer.pid})
        await self._writer.ask("write", count=messages, first=self._first)
        spent = meter.micros(total)["writer"]
        self._first += messages
        into.wrong = into.wrong or fault(await self._readers.report(total), total)
        return spent


class Pair:
    """Node A that sends, the clients, who may be of node B, and the processes whose CPU counts."""

    def __init__(self, a: Program, processes: dict[str, int], readers: Clients) -> None:
        self._a = a
        self._processes = processes
        self._readers = readers
        self._first = 0

    async def round(self, work: Work, into: Rounds) -> dict[str, float]:
        """CPU of the processes, per message that reached a client; faults are noted."""
        await asyncio.sleep(REST)
        each = work.rounds * work.burst
        total = each * self._readers.count
        targeted = work.do != "broadcast"
        await self._a.ask(
            "load", rounds=work.rounds, burst=work.burst, first=self._first, targeted=targeted
        )
        await self._readers.expect(self._readers.count * work.burst, self._first)
        meter = Meter(self._processes)
        said = await self._a.ask(work.do)
        report = await self._readers.report(total)
        spent = meter.micros(total)
        self._first += each
        into.deliveries += total
        into.disordered += report["disordered"]
        faults = [f"{count:,} {what}" for what, count in said.items() if count]
        into.wrong = into.wrong or fault({**report, "disordered": 0}, total, faults)
        return spent

    async def profile(self, work: Work, path: str, programs: Iterable[tuple[str, Program]]) -> None:
        """A round under cProfile in some nodes, written to files that begin with ``path``."""
        for _, program in programs:
            await program.ask("profile")
        await self.round(work, Rounds())
        for name, program in programs:
            await program.ask("profile", path=f"{path}-{name}.pstats")


@contextlib.asynccontextmanager
async def bare_writes(settings: Settings) -> AsyncIterator[Floor]:
    """The floor, with as many sockets as there are connections."""
    async with clients() as readers, gated("writer", gate=readers.gate) as writer:
        accepted = writer.tell("accept", count=settings.connections)
        await readers.open(writer.hello["port"], "", settings.connections)
        await accepted
        yield Floor(writer, readers)


@contextlib.asynccontextmanager
async def ours(
    settings: Settings, loop: str, *, framed: bool = False
) -> AsyncIterator[tuple[Pair, Program, Program]]:
    """Two nodes of cluster_pool, and both programs; the clients may speak ``cluster-pool.v1``."""
    with RedisServer() as redis:
        async with (
            node(redis.url, "B", loop) as b,
            clients() as readers,
            node(redis.url, "A", loop, readers.gate) as a,
        ):
            await readers.connect(b.hello["port"], settings.connections, framed=framed)
            await a.ask("know", ids=[member_id(at) for at in range(settings.connections)])
            yield Pair(a, {"A": a.pid, "B": b.pid, "Redis": redis.pid}, readers), a, b


async def measure(settings: Settings, loop: str, tell: Tell, wanted: set[str]) -> list[Row]:
    """The rows of the wanted scenarios; the floor is always among them."""
    chosen = {name: work for name, work in works(settings).items() if name in wanted}
    results = {name: Rounds() for name in chosen}
    floors = Rounds()
    async with bare_writes(settings) as floor, contextlib.AsyncExitStack() as stack:
        plain = await stack.enter_async_context(ours(settings, loop))
        pairs = dict.fromkeys(chosen, plain)
        if BROADCAST_V1 in chosen:
            pairs[BROADCAST_V1] = await stack.enter_async_context(ours(settings, loop, framed=True))
        for at in range(settings.rounds + 1):
            tell(f"delivery, {loop}: round {at} of {settings.rounds}" if at else "warming up")
            for name in chosen or (FLOOR,):
                bare = await floor.round(settings.messages, floors)
                if at:
                    floors.floors.append(bare)
                if name in chosen:
                    spent = await pairs[name][0].round(chosen[name], results[name])
                    if at:
                        results[name].spent.append(spent)
                        results[name].floors.append(bare)
        if settings.profile:
            for name, work in chosen.items():
                tell(f"delivery, {loop}: profiling {name}")
                path = f"{settings.profile}/{name}-{loop}"
                pair, a, b = pairs[name]
                await pair.profile(work, path, (("A", a), ("B", b)))
    return [
        Row(
            f"floor: bare write(2) to {settings.connections:,} sockets",
            "µs",
            floors.floors,
            wrong=floors.wrong,
            note="CPU of the writing process per write",
        ),
        *[row(chosen[name].what, loop, results[name]) for name in chosen],
    ]


def row(what: str, loop: str, rounds: Rounds) -> Row:
    """The result of a scenario of ours, in which no message may be out of order."""
    late = f"WRONG: {rounds.disordered:,} messages out of order" if rounds.disordered else ""
    return Row(
        what,
        "µs",
        rounds.sums(),
        loop,
        rounds.floors,
        rounds.wrong or late,
        "CPU per delivery",
        rounds.parts(),
    )
