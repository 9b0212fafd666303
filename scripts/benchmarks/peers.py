"""CPU per delivered message beside others who send to WebSockets, in one run with us.

As in ``delivery``: node A publishes, node B holds the clients, Redis is between; a round of the
floor goes before each round, and a sender goes on when everything has arrived. All contenders are
up all the time and take turns within a round, so that the moods of the machine meet them alike.
"""

import contextlib
import statistics
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks import chart
from benchmarks.children import Child, Gate
from benchmarks.cluster import NAMESPACE, Clients, Meter, Settings, clients, fault, node
from benchmarks.contenders.install import NotInstalledError
from benchmarks.contenders.line_up import Contender, Installed, line_up
from benchmarks.delivery import BURST, Floor, bare_writes
from benchmarks.payloads import SIZE, member_id
from benchmarks.table import Row
from cluster_pool.embedded import EmbeddedServer

OURS = "cluster_pool"
FLOOR = "bare write(2)"
WARM_UP = 3
"""Rounds that are not counted: a just-in-time compiler needs more than one."""
REMARKS = (
    "CPU of both nodes and of Redis, not of the clients. Dashed, and 1 ×: a bare write(2) for each",
    "message, measured before each round. Thin lines: the least and the most of all rounds.",
    "Below 1 ×: messages that are due to one client together leave in one write.",
    "websockets.broadcast is one process without Redis: it reaches no other node.",
)
SHARE, SLOW = 2, 4
"""One in so many of the messages of ``delivery``, and of these again for a slow contender."""


@dataclass(frozen=True)
class Mode:
    """One way to send: so many rounds of so many messages, each to every client."""

    text: str
    do: str
    rounds: int
    burst: int

    def work(self, slow: bool) -> int:
        """Rounds of messages in one round of the bench."""
        return share(self.rounds, SLOW) if slow else self.rounds


@dataclass
class PeerRow(Row):
    """A row that knows what it compares, for the chart."""

    mode: str = ""
    name: str = ""


@dataclass
class Result:
    """The rounds of one contender in one mode, and the floor before each."""

    rounds: list[dict[str, float]] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    deliveries: int = 0
    disordered: int = 0
    wrong: str = ""


def share(messages: int, of: int = SHARE) -> int:
    """So much of them, but some."""
    return max(1, messages // of)


def modes(settings: Settings) -> list[Mode]:
    """What is measured of each."""
    count = f"{settings.connections:,}"
    everyone = f"broadcast to {count} clients of another node"
    return [
        Mode(f"{everyone}, one at a time", "broadcast", share(settings.messages), 1),
        Mode(f"{everyone}, {BURST} at once", "broadcast", share(settings.bursts), BURST),
        Mode(f"sends to {count} ids, all at once", "targeted", share(settings.sends), 1),
    ]


class Contest:
    """One contender, running: its processes, and its clients, who wait to be sent to."""

    def __init__(self, a: Child, processes: dict[str, int], readers: Clients) -> None:
        self._a = a
        self._processes = processes
        self._readers = readers
        self._first = 0

    async def round(self, mode: Mode, slow: bool, result: Result) -> dict[str, float]:
        """CPU of all processes in µs, per message that reached a client."""
        rounds = mode.work(slow)
        each = rounds * mode.burst
        total = each * self._readers.count
        targeted = mode.do == "targeted"
        await self._a.ask(
            "load", rounds=rounds, burst=mode.burst, first=self._first, targeted=targeted
        )
        await self._readers.expect(self._readers.count * mode.burst, self._first)
        meter = Meter(self._processes)
        said = await self._a.ask(mode.do, namespace=NAMESPACE)
        report = await self._readers.report(total)
        spent = meter.micros(total)
        self._first += each
        self._judge(said, report, total, result)
        return spent

    def _judge(
        self, said: dict[str, Any], report: dict[str, Any], total: int, result: Result
    ) -> None:
        """Others may promise no order: what came out of order is counted, and told."""
        result.disordered += report["disordered"]
        result.deliveries += total
        faults = [f"{count:,} {word}" for word, count in said.items() if count]
        result.wrong = result.wrong or fault({**report, "disordered": 0}, total, faults)


@contextlib.asynccontextmanager
async def _other(
    contender: Contender, installed: Installed, settings: Settings
) -> AsyncIterator[Contest]:
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(EmbeddedServer()) if contender.nodes else None
        readers = await stack.enter_async_context(clients())
        unused = stack.enter_context(contextlib.closing(Gate()))
        where = (redis.url, str(redis.path)) if redis else ("", "")

        async def program(gate: Gate) -> Child:
            command = installed.command(*where, gate.read_end)
            child = await Child.launch(contender.name, command, (gate.read_end,))
            stack.push_async_callback(child.stop)
            return child

        a = await program(readers.gate)
        b = await program(unused) if redis else a
        await readers.open(
            b.hello["port"], contender.path, settings.connections, packets=contender.packets
        )
        await a.ask("know", ids=[member_id(index) for index in range(settings.connections)])
        processes = {"A": a.pid, "B": b.pid, "Redis": redis.pid} if redis else {"server": a.pid}
        yield Contest(a, processes, readers)


@contextlib.asynccontextmanager
async def _ours(settings: Settings, loop: str) -> AsyncIterator[Contest]:
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(EmbeddedServer())
        b = await stack.enter_async_context(node(redis.url, "B", loop))
        readers = await stack.enter_async_context(clients())
        a = await stack.enter_async_context(node(redis.url, "A", loop, readers.gate))
        await readers.connect(b.hello["port"], NAMESPACE, settings.connections)
        await a.ask("know", first=0, count=settings.connections)
        yield Contest(a, {"A": a.pid, "B": b.pid, "Redis": redis.pid}, readers)


class Entry:
    """A contender's place in the table, whether it runs or not."""

    def __init__(self, name: str, loop: str, *, slow: bool = False, alone: bool = False) -> None:
        self.name = name
        self.loop = loop
        self.slow = slow
        self.alone = alone
        self.note = ""
        self.versions = ""
        self.absent = ""
        self.contest: Contest | None = None
        self.results: dict[str, Result] = {}

    def plays(self, mode: Mode) -> bool:
        """Whether the mode is one of its."""
        return not (self.alone and mode.do == "targeted")

    async def round(self, mode: Mode, floor: Floor, settings: Settings, counted: bool) -> None:
        """A round of the floor and one of the contender, which is out when it fails."""
        if self.contest is None:
            return
        bare, wrong = await floor.round(share(settings.messages))
        result = self.results.setdefault(mode.text, Result())
        result.wrong = result.wrong or wrong
        try:
            spent = await self.contest.round(mode, self.slow, result)
        except (RuntimeError, OSError, TimeoutError) as error:
            self.contest, self.absent = None, f"failed: {error or type(error).__name__}"
            result.wrong = result.wrong or f"WRONG: {self.absent}"
            return
        if counted:
            result.rounds.append(spent)
            result.floors.append(sum(bare.values()))

    def row(self, mode: Mode, connections: int, *, versions: bool) -> PeerRow:
        """What became of it; the versions are not told in every row."""
        result = self.results.get(mode.text, Result())
        late = result.disordered / result.deliveries if result.deliveries else 0
        wrong = result.wrong
        if late and self.name == OURS:
            wrong = wrong or "WRONG: messages out of order"
        notes = [
            self.absent,
            f"{mode.work(self.slow) * mode.burst * connections:,} a round" if result.rounds else "",
            f"{late:.1%} out of order" if late else "",
            self.note,
            self.versions if versions else "",
        ]
        return PeerRow(
            f"{mode.text}: {self.name}",
            "µs",
            [sum(parts.values()) for parts in result.rounds],
            self.loop,
            result.floors,
            wrong,
            "; ".join(note for note in notes if note),
            _medians(result.rounds),
            mode=mode.text,
            name=self.name,
        )


def _medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    if not rounds:
        return {}
    return {name: statistics.median(parts[name] for parts in rounds) for name in rounds[0]}


async def _enter(
    contender: Contender,
    settings: Settings,
    stack: contextlib.AsyncExitStack,
    tell: Callable[[str], None],
) -> Entry:
    entry = Entry(contender.name, contender.loop, slow=contender.slow, alone=not contender.nodes)
    entry.note = contender.note
    tell(f"peers: preparing {contender.name}")
    try:
        installed = await contender.install()
        entry.versions = installed.versions
        entry.contest = await stack.enter_async_context(_other(contender, installed, settings))
    except NotInstalledError as error:
        entry.absent = f"not installed: {error}"
    except (RuntimeError, OSError, TimeoutError) as error:
        entry.absent = f"did not start: {error or type(error).__name__}"
    return entry


async def measure(settings: Settings, loop: str, tell: Callable[[str], None]) -> list[Row]:
    """The floor, and in each mode ourselves and every contender."""
    ours = Entry(OURS, loop)
    async with contextlib.AsyncExitStack() as stack:
        floor = await stack.enter_async_context(bare_writes(settings))
        ours.contest = await stack.enter_async_context(_ours(settings, loop))
        others = [await _enter(one, settings, stack, tell) for one in line_up(loop)]
        entries = [ours, *others]
        for at in range(1 - WARM_UP, settings.rounds + 1):
            tell(f"peers: round {at} of {settings.rounds}" if at > 0 else "peers: warming up")
            for mode in modes(settings):
                for entry in entries:
                    if entry.plays(mode):
                        await entry.round(mode, floor, settings, counted=at > 0)
    return _rows(settings, entries)


def drawn(rows: Sequence[Row], about: Mapping[str, str]) -> str:
    """The chart of the table, as SVG."""
    compared = [row for row in rows if isinstance(row, PeerRow)]
    groups: dict[str, list[chart.Bar]] = {}
    for row in compared:
        if row.mode:
            groups.setdefault(row.mode, []).append(_bar(row))
    floor = next((row for row in compared if not row.mode and row.samples), None)
    line = (f"{floor.name}: {chart.number(floor.median)} µs = 1 ×", floor.median) if floor else None
    title = f"CPU per delivered message of {SIZE} bytes"
    return chart.bars(groups, title, "µs", line, (*REMARKS, about["machine"]))


def _bar(row: PeerRow) -> chart.Bar:
    if not row.samples or row.wrong:
        return chart.Bar(row.name, None, row.wrong or row.note.partition(";")[0])
    told = f"{chart.number(row.median)} µs, {chart.number(row.ratio or 0)} ×"
    spread = (min(row.samples), max(row.samples))
    return chart.Bar(row.name, row.median, told, spread, ours=row.name == OURS)


def _rows(settings: Settings, entries: Sequence[Entry]) -> list[Row]:
    floors = [one for entry in entries for made in entry.results.values() for one in made.floors]
    note = f"CPU of the writing process per write of {SIZE} bytes"
    rows: list[Row] = [
        PeerRow(f"{FLOOR} to {settings.connections:,} sockets", "µs", floors, note=note, name=FLOOR)
    ]
    for at, mode in enumerate(modes(settings)):
        rows += [
            entry.row(mode, settings.connections, versions=at == 0)
            for entry in entries
            if entry.plays(mode)
        ]
    return rows
