"""CPU per delivered message beside others who send to WebSockets, in one run with us.

As in ``delivery``: node A publishes, node B holds the clients, Redis is between; a round of the
floor goes before each round, and a sender goes on when everything has arrived. All contenders are
up all the time and take turns within a round, so that the moods of the machine meet them alike.
"""

import contextlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tools.bench import chart, contest
from tools.bench.cluster import Settings
from tools.bench.contenders.install import NotInstalledError
from tools.bench.contenders.line_up import Contender, line_up
from tools.bench.contest import Contest, Mode, Result, modes
from tools.bench.delivery import Floor, bare_writes
from tools.bench.payloads import SIZE
from tools.bench.table import Row

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


@dataclass
class PeerRow(Row):
    """A row that knows what it compares, for the chart."""

    mode: str = ""
    name: str = ""


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
        bare, wrong = await floor.round(settings.messages)
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
        entry.contest = await stack.enter_async_context(
            contest.others(contender, installed, settings)
        )
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
        ours.contest = await stack.enter_async_context(contest.ours(settings, loop))
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
    ratio = row.ratio or 0
    times = f"{ratio:.2f}" if ratio < 10 else chart.number(ratio)
    told = f"{chart.number(row.median)} µs, {times} ×"
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
