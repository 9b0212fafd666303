"""CPU per delivered message beside others who send to WebSockets, in one run with us.

As in ``delivery``: node A publishes, node B holds the clients, Redis is between; a round of the
floor goes before each round, and a sender goes on when everything has arrived. All contenders are
up all the time and take turns within a round, so that the moods of the machine meet them alike.
"""

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace

from tools.bench import delivery
from tools.bench.delivery import Floor, Pair, Rounds, Work, bare_writes
from tools.bench.gate import Gate
from tools.bench.payloads import SIZE, member_id
from tools.bench.stage import PATIENCE, Settings, Tell, clients
from tools.bench.table import Row
from tools.contenders.line_up import OTHERS, OURS, Contender
from tools.harness.programs import Program, ProgramEndedError
from tools.harness.servers import RedisServer

WARM_UP = 3
"""Rounds that are not counted: a just-in-time compiler needs more than one."""
SHARE, SLOW = 2, 4
"""One in so many rounds of ``delivery`` is enough here; and of these, for a slow contender."""


def works(settings: Settings) -> list[Work]:
    """The works that are measured of each."""
    return [work.less(SHARE) for work in delivery.works(settings).values()]


@dataclass
class Entry:
    """A contender's place in the table, whether it runs or not."""

    contender: Contender
    pair: Pair | None = None
    absent: str = ""
    results: dict[str, Rounds] = field(default_factory=dict)

    def plays(self, work: Work) -> bool:
        """Whether it can do this: a process alone sends to everybody or to nobody."""
        return not (self.contender.alone and work.do == "targeted")

    def share(self, work: Work) -> Work:
        """As much of it as it gets."""
        return work.less(SLOW) if self.contender.slow else work

    async def round(self, work: Work, floor: Floor, settings: Settings, counted: bool) -> None:
        """A round of the floor and one of the contender, which is out when it fails."""
        if self.pair is None:
            return
        result = self.results.setdefault(work.what, Rounds())
        bare = await floor.round(settings.messages, result)
        try:
            spent = await self.pair.round(self.share(work), result)
        except (ProgramEndedError, OSError) as error:
            self.pair, self.absent = None, f"failed: {error}"
            result.wrong = result.wrong or f"WRONG: {self.absent}"
            return
        if counted:
            result.spent.append(spent)
            result.floors.append(bare)

    def row(self, work: Work, connections: int, *, versions: bool) -> Row:
        """The result of a work. Others may promise no order: the row tells how many lost it."""
        result = self.results.get(work.what, Rounds())
        late = result.disordered / result.deliveries if result.deliveries else 0
        wrong = result.wrong
        if late and self.contender.name == OURS.name:
            wrong = wrong or "WRONG: messages out of order"
        share = self.share(work)
        notes = [
            self.absent,
            f"{share.rounds * share.burst * connections:,} a round" if result.spent else "",
            f"{late:.1%} out of order" if late else "",
            self.contender.note,
            self.contender.versions() if versions and not self.absent else "",
        ]
        return Row(
            f"{work.what}: {self.contender.name}",
            "µs",
            result.sums(),
            self.contender.loop,
            result.floors,
            wrong,
            "; ".join(note for note in notes if note),
            result.parts(),
            group=work.what,
            name=self.contender.name,
        )


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """The floor, and in each way to send ourselves and every contender."""
    async with contextlib.AsyncExitStack() as stack:
        floor = await stack.enter_async_context(bare_writes(settings))
        us, _, _ = await stack.enter_async_context(delivery.ours(settings, loop))
        entries = [Entry(replace(OURS, loop=loop), us)]
        for contender in OTHERS:
            tell(f"peers: preparing {contender.name}")
            if contender.alone:
                contender = replace(contender, loop=loop)
            entries.append(await _enter(contender, settings, stack))
        for at in range(1 - WARM_UP, settings.rounds + 1):
            tell(f"peers: round {at} of {settings.rounds}" if at > 0 else "peers: warming up")
            for work in works(settings):
                for entry in entries:
                    if entry.plays(work):
                        await entry.round(work, floor, settings, counted=at > 0)
    return rows(settings, entries)


def rows(settings: Settings, entries: Sequence[Entry]) -> list[Row]:
    """The floor's, and everybody's; the first of each tells its versions."""
    floors = [one for entry in entries for made in entry.results.values() for one in made.floors]
    what = f"floor: bare write(2) of {SIZE} bytes, before each round of peers"
    return [
        Row(what, "µs", floors, note="CPU of the writing process per write", name="floor"),
        *[
            entry.row(work, settings.connections, versions=not at)
            for at, work in enumerate(works(settings))
            for entry in entries
            if entry.plays(work)
        ],
    ]


async def _enter(
    contender: Contender, settings: Settings, stack: contextlib.AsyncExitStack
) -> Entry:
    if missing := contender.missing():
        return Entry(contender, absent=f"not installed: {missing}")
    try:
        return Entry(contender, await stack.enter_async_context(_others(contender, settings)))
    except (ProgramEndedError, OSError) as error:
        return Entry(contender, absent=f"did not start: {error}")


@contextlib.asynccontextmanager
async def _others(contender: Contender, settings: Settings) -> AsyncIterator[Pair]:
    """Another contender's processes, with their clients."""
    async with contextlib.AsyncExitStack() as stack:
        redis = None if contender.alone else stack.enter_context(RedisServer())
        readers = await stack.enter_async_context(clients())
        unused = stack.enter_context(contextlib.closing(Gate()))

        async def program(gate: Gate) -> Program:
            command = contender.command(redis.url if redis else "", str(gate.read_end))
            started = await Program.launch(
                contender.name, command, fds=(gate.read_end,), patience=PATIENCE
            )
            stack.push_async_callback(started.stop)
            return started

        a = await program(readers.gate)
        b = await program(unused) if redis else a
        await readers.open(
            b.hello["port"], contender.path, settings.connections, packets=contender.packets
        )
        await a.ask("know", ids=[member_id(at) for at in range(settings.connections)])
        pids = {"A": a.pid, "B": b.pid, "Redis": redis.pid} if redis else {"server": a.pid}
        yield Pair(a, pids, readers)
