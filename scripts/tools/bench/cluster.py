"""What the scenarios stand on: a private Valkey, nodes and clients as processes, their CPU."""

import contextlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Any

from tools.bench.children import Child, Gate
from tools.bench.machine import cpu_ns

HOST = "127.0.0.1"
NAMESPACE = "bench"
RECEIVE_TIMEOUT = 30.0


@dataclass(frozen=True)
class Settings:
    """How much is measured; see ``--help``."""

    rounds: int
    connections: int
    messages: int
    bursts: int
    single_sends: int
    idle: int
    members: int
    victims: int
    restarted: int = 4000
    close_rate: float = 160.0
    idle_each: int = 10_000
    idle_seconds: float = 40.0
    storm: int = 5000
    nodes: int = 16
    many: int = 1_000_000
    lease: float = 10.0
    profile: str = ""


class Clients:
    """A client process and the gate through which it tells a sender that all has arrived."""

    def __init__(self, child: Child, gate: Gate) -> None:
        self.child = child
        self.gate = gate
        self.count = 0

    async def connect(self, port: int, namespace: str, count: int, first: int = 0) -> None:
        """Open WebSockets to a node; with an empty namespace, bare sockets."""
        path = f"/ws/{namespace}" if namespace else ""
        await self.open(port, path, count, first=first)

    async def open(self, port: int, path: str, count: int, **fields: Any) -> None:
        """Open WebSockets to any server; see the client program for the fields."""
        await self.child.ask("connect", host=HOST, port=port, path=path, count=count, **fields)
        self.count += count

    async def expect(self, per_gate: int, first: int, *, stamps: bool = False) -> None:
        """Begin to count; message numbers begin at ``first``."""
        await self.child.ask("expect", per_gate=per_gate, first=first, stamps=stamps)

    async def report(self, total: int) -> dict[str, Any]:
        """What has arrived, once it is ``total`` or too late."""
        return await self.child.ask("report", total=total, timeout=RECEIVE_TIMEOUT)


@contextlib.asynccontextmanager
async def clients() -> AsyncIterator[Clients]:
    """A client process."""
    gate = Gate()
    child = await Child.start("clients", str(gate.write_end), fds=(gate.write_end,))
    try:
        yield Clients(child, gate)
    finally:
        await child.stop()
        gate.close()


@contextlib.asynccontextmanager
async def node(redis: str, name: str, loop: str, gate: Gate | None = None) -> AsyncIterator[Child]:
    """A node process, ready."""
    opened = gate or Gate()
    child = await Child.start(
        "node", redis, name, loop, str(opened.read_end), fds=(opened.read_end,)
    )
    try:
        yield child
    finally:
        await child.stop()
        if gate is None:
            opened.close()


class Meter:
    """CPU of some processes between two looks."""

    def __init__(self, processes: dict[str, int]) -> None:
        self._processes = processes
        self._before = self._look()

    def _look(self) -> dict[str, int]:
        return {name: cpu_ns(pid) for name, pid in self._processes.items()}

    def micros(self, per: int) -> dict[str, float]:
        """CPU since the start of the meter in µs by process, divided by ``per``."""
        after = self._look()
        return {name: (after[name] - self._before[name]) / 1000 / per for name in after}


def fault(report: dict[str, Any], total: int, said: Iterable[str]) -> str:
    """What is wrong with a round, "" when every message came once and in order."""
    faults = [text for text in said if text]
    if report["received"] != total:
        faults.append(f"{report['received']:,} of {total:,} messages received")
    if report["wrong"]:
        faults.append(f"{report['wrong']:,} messages doubled or misrouted")
    if report["disordered"]:
        faults.append(f"{report['disordered']:,} messages out of order")
    return "WRONG: " + ", ".join(faults) if faults else ""
