"""The base of the scenarios: nodes and clients as processes, their CPU, and the amount of work."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tools.bench.gate import Gate
from tools.bench.node import NAMESPACE
from tools.harness.linux import cpu_ns
from tools.harness.ports import HOST
from tools.harness.programs import Program

PATIENCE = 300.0
RECEIVE_TIMEOUT = 30.0

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How much is measured; see ``--help``."""

    rounds: int = 12
    connections: int = 1000
    messages: int = 15
    bursts: int = 10
    single_sends: int = 300
    idle: int = 5000
    idle_seconds: float = 40.0
    storm: int = 5000
    nodes: int = 16
    members: int = 100_000
    namespaces: int = 100_000
    restarted: int = 4000
    accounts: int = 19_500
    close_rate: float = 160.0
    profile: str = ""

    @property
    def fresh_rounds(self) -> int:
        """The rounds of scenarios that start everything anew in each."""
        return min(self.rounds, 3)


QUICK = Settings(
    rounds=3,
    messages=10,
    single_sends=100,
    idle=1000,
    idle_seconds=10.0,
    storm=1000,
    nodes=4,
    members=10_000,
    namespaces=5_000,
    restarted=1600,
    accounts=2000,
    close_rate=120.0,
)


class Clients:
    """A client process and the gate through which it tells a sender that all has arrived."""

    def __init__(self, program: Program, gate: Gate) -> None:
        self.gate = gate
        self.count = 0
        self._program = program

    async def connect(self, port: int, count: int, first: int = 0, *, framed: bool = False) -> None:
        """Open WebSockets to a node; with ``framed`` they speak ``cluster-pool.v1``."""
        await self.open(port, f"/ws/{NAMESPACE}", count, first=first, framed=framed)

    async def open(self, port: int, path: str, count: int, **fields: Any) -> None:
        """Open WebSockets to any server, or with no path bare sockets; see the client program."""
        await self._program.ask("connect", host=HOST, port=port, path=path, count=count, **fields)
        self.count += count

    async def expect(self, per_gate: int, first: int, *, stamps: bool = False) -> None:
        """Begin to count; message numbers begin at ``first``."""
        await self._program.ask("expect", per_gate=per_gate, first=first, stamps=stamps)

    async def report(self, total: int) -> dict[str, Any]:
        """The clients' report, once ``total`` messages have arrived or it is too late."""
        report: dict[str, Any]
        report = await self._program.ask("report", total=total, timeout=RECEIVE_TIMEOUT)
        return report


@contextlib.asynccontextmanager
async def gated(
    module: str, *arguments: str, gate: Gate | None = None, writes: bool = False
) -> AsyncIterator[Program]:
    """A program of this bench whose last argument is an end of a gate, its own if none is given."""
    own = gate or Gate()
    end = own.write_end if writes else own.read_end
    try:
        program = await Program.start(
            f"tools.bench.{module}", *arguments, str(end), fds=(end,), patience=PATIENCE
        )
        try:
            yield program
        finally:
            await program.stop()
    finally:
        if gate is None:
            own.close()


@contextlib.asynccontextmanager
async def clients() -> AsyncIterator[Clients]:
    """A client process."""
    with contextlib.closing(Gate()) as gate:
        async with gated("clients", gate=gate, writes=True) as program:
            yield Clients(program, gate)


def node(
    redis: str, name: str, loop: str, gate: Gate | None = None
) -> contextlib.AbstractAsyncContextManager[Program]:
    """A node process, ready."""
    return gated("node", redis, name, loop, gate=gate)


class Meter:
    """CPU of some processes between two looks."""

    def __init__(self, processes: dict[str, int]) -> None:
        self._processes = processes
        self._before = self._look()

    def _look(self) -> dict[str, int]:
        return {name: cpu_ns(pid) for name, pid in self._processes.items()}

    def micros(self, per: int = 1) -> dict[str, float]:
        """CPU since the start of the meter in µs by process, divided by ``per``."""
        after = self._look()
        return {name: (after[name] - self._before[name]) / 1000 / per for name in after}


def fault(report: dict[str, Any], total: int, said: Iterable[str] = ()) -> str:
    """The fault of a round; "" when every message came once and in order."""
    faults = list(said)
    if report["received"] != total:
        faults.append(f"{report['received']:,} of {total:,} messages received")
    if report["wrong"]:
        faults.append(f"{report['wrong']:,} messages doubled or misrouted")
    if report["disordered"]:
        faults.append(f"{report['disordered']:,} messages out of order")
    return "WRONG: " + ", ".join(faults) if faults else ""


def miscounted(members: int, expected: int) -> str:
    """The error text when the cluster counts another number of members."""
    return "" if members == expected else f"WRONG: {members:,} members, not {expected:,}"


def percentile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least ``share`` of all do not exceed."""
    ordered = sorted(samples)
    return ordered[max(0, -(-int(share * 100) * len(ordered) // 100) - 1)]
