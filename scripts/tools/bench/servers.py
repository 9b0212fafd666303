"""Frameworks and their servers beside ``serve``, and ``serve`` beside what it could be at best.

All contenders hold as many clients, and send to them by themselves; their CPU alone counts. They
take turns within each round, so that the moods of the machine meet them alike. They are compared
with ``serve``, and ``serve`` with a bare write(2). The latency of single sends and a storm of
clients follow, both of ``serve`` alone.
"""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

from tools.bench import latency, storm
from tools.bench.delivery import Pair, Rounds, Work, bare_writes, works
from tools.bench.idle import FIRST, TOGETHER, settled
from tools.bench.node import NAMESPACE
from tools.bench.payloads import member_id
from tools.bench.stage import Clients, Settings, Tell, clients, gated, miscounted, node
from tools.bench.table import Row
from tools.harness.programs import Program
from tools.harness.servers import RedisServer

OURS = "cluster_pool.uvicorn:Protocol"
SERVE = "serve"


@dataclass(frozen=True)
class Kind:
    """One way to serve.

    Attributes:
        name: for the table.
        server: see :mod:`tools.bench.app_node`; "" for ``serve`` itself.
        pool: whether a pool of ours sends.
        deflate: whether the clients offer compression, as browsers do.
    """

    name: str
    server: str = ""
    pool: bool = True
    deflate: bool = False

    @property
    def path(self) -> str:
        """The path of its WebSockets."""
        return "/" if self.server else f"/ws/{NAMESPACE}"


PLAIN = (
    Kind(SERVE),
    Kind("FastAPI, our protocol", OURS),
    Kind("FastAPI, uvicorn websockets-sansio", "websockets-sansio"),
    Kind("FastAPI, uvicorn websockets", "websockets"),
    Kind("FastAPI, uvicorn wsproto", "wsproto"),
    Kind("FastAPI, hypercorn", "hypercorn"),
    Kind("FastAPI, granian", "granian"),
    Kind("aiohttp", "aiohttp"),
    Kind("FastAPI alone, uvicorn websockets-sansio", "websockets-sansio", pool=False),
)
OFFERED = tuple(
    replace(kind, name=f"{kind.name}, compression offered", deflate=True)
    for kind in PLAIN
    if kind.server in ("", OURS, "websockets-sansio")
)
KINDS = (*PLAIN, *OFFERED)


@dataclass
class Entry:
    """A contender that runs, and its results by work."""

    kind: Kind
    pair: Pair
    results: dict[str, Rounds] = field(default_factory=dict)


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """Deliveries and idle connections of all; then the latency and the storm of ``serve``."""
    rows = await _deliveries(settings, loop, tell)
    rows += await _memory(settings, loop, tell)
    rows += await latency.measure(settings, loop, tell)
    return rows + await storm.measure(settings, loop, tell)


async def _deliveries(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    what = f"sends to {settings.connections:,} ids by a gather of send()"
    gathered = Work(what, "gathered", settings.messages)
    wanted = {one.what: one.less(2) for one in (*works(settings).values(), gathered)}
    floors: dict[str, list[float]] = {what: [] for what in wanted}
    async with contextlib.AsyncExitStack() as stack:
        floor = await stack.enter_async_context(bare_writes(settings))
        entries = []
        for kind in KINDS:
            tell(f"servers: starting {kind.name}")
            program, readers = await stack.enter_async_context(_running(kind, loop))
            await _connect(readers, program, kind, settings.connections)
            await program.ask("know", ids=[member_id(at) for at in range(settings.connections)])
            entries.append(Entry(kind, Pair(program, {"server": program.pid}, readers)))
        for at in range(settings.rounds + 1):
            tell(f"servers: round {at} of {settings.rounds}" if at else "servers: warming up")
            for what, work in wanted.items():
                bare = await floor.round(work.rounds, Rounds())
                if at:
                    floors[what].append(bare)
                for entry in entries:
                    if entry.kind.pool or work.do == "broadcast":
                        result = entry.results.setdefault(what, Rounds())
                        spent = await entry.pair.round(work, result)
                        if at:
                            result.spent.append(spent)
    serve = entries[0]
    return [
        _row(entry, what, loop, floors[what] if entry is serve else serve.results[what].sums())
        for what in wanted
        for entry in entries
        if what in entry.results
    ]


def _row(entry: Entry, what: str, loop: str, floors: list[float]) -> Row:
    result = entry.results[what]
    beside = "serve" if entry.kind.server else "a bare write(2)"
    late = f"WRONG: {result.disordered:,} messages out of order" if result.disordered else ""
    return Row(
        f"{what} to its own clients: {entry.kind.name}",
        "µs",
        result.sums(),
        loop,
        floors,
        result.wrong or late,
        f"CPU of the server per delivery, beside {beside}",
    )


async def _memory(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """KiB by which a fresh process grows for each connection."""
    rows: dict[str, list[float]] = {kind.name: [] for kind in KINDS}
    wrong: dict[str, str] = {}
    for at in range(settings.fresh_rounds):
        for kind in KINDS:
            tell(f"servers: idle, {kind.name}, round {at + 1} of {settings.fresh_rounds}")
            async with _running(kind, loop) as (program, readers):
                await _connect(readers, program, kind, FIRST)
                before = await settled(program)
                for done in range(0, settings.idle, TOGETHER):
                    some = min(TOGETHER, settings.idle - done)
                    await _connect(readers, program, kind, some, FIRST + done)
                rows[kind.name].append((await settled(program) - before) / settings.idle / 1024)
                counted = miscounted(await program.ask("count"), FIRST + settings.idle)
                wrong[kind.name] = wrong.get(kind.name) or counted
    serve = rows[SERVE]
    return [
        Row(
            f"memory per idle connection, {settings.idle:,} of them: {name}",
            *("KiB", samples, loop, serve),
            wrong=wrong[name],
            note="growth of the RSS, beside serve",
        )
        for name, samples in rows.items()
    ]


@contextlib.asynccontextmanager
async def _running(kind: Kind, loop: str) -> AsyncIterator[tuple[Program, Clients]]:
    """A process of this kind with a Redis of its own, and a process for its clients."""
    with RedisServer() as redis:
        async with clients() as readers, _program(kind, redis.url, loop, readers) as program:
            yield program, readers


def _program(
    kind: Kind, redis: str, loop: str, readers: Clients
) -> contextlib.AbstractAsyncContextManager[Program]:
    if not kind.server:
        return node(redis, "B", loop, readers.gate)
    pool = "pool" if kind.pool else ""
    return gated("app_node", redis, loop, kind.server, pool, gate=readers.gate)


async def _connect(
    readers: Clients, program: Program, kind: Kind, count: int, first: int = 0
) -> None:
    port = program.hello["port"]
    await readers.open(port, kind.path, count, first=first, deflate=kind.deflate)
