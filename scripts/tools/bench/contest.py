"""One contender, running: its processes, its clients, and a round of sending, all of it checked.

``delivery`` does the same for us alone, in more ways. A round begins after quiet, as there; of 16
at once, those who write each message by itself leave that state on the way, which is cheaper.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from cluster_pool.embedded import EmbeddedServer
from tools.bench.children import Child, Gate
from tools.bench.cluster import NAMESPACE, Clients, Meter, Settings, clients, fault, node
from tools.bench.contenders.line_up import Contender, Installed
from tools.bench.delivery import BURST, REST
from tools.bench.payloads import member_id

SHARE, SLOW = 2, 4
"""One in so many of the bursts and sends of ``delivery``; of a round, for a slow contender."""


def share(messages: int, of: int = SHARE) -> int:
    """So much of them, but some."""
    return max(1, messages // of)


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


def modes(settings: Settings) -> list[Mode]:
    """What is measured of each."""
    count = f"{settings.connections:,}"
    everyone = f"broadcast to {count} clients of another node"
    return [
        Mode(f"{everyone}, one at a time", "broadcast", settings.messages, 1),
        Mode(f"{everyone}, {BURST} at once", "broadcast", share(settings.bursts), BURST),
        Mode(f"sends to {count} ids, all at once", "targeted", share(settings.messages), 1),
    ]


@dataclass
class Result:
    """The rounds of one contender in one mode, and the floor before each."""

    rounds: list[dict[str, float]] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)
    deliveries: int = 0
    disordered: int = 0
    wrong: str = ""


class Contest:
    """One contender, running: its processes, and its clients, who wait to be sent to."""

    def __init__(self, a: Child, processes: dict[str, int], readers: Clients) -> None:
        self._a = a
        self._processes = processes
        self._readers = readers
        self._first = 0

    async def round(self, mode: Mode, slow: bool, result: Result) -> dict[str, float]:
        """CPU of all processes in µs, per message that reached a client."""
        await asyncio.sleep(REST)
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
async def others(
    contender: Contender, installed: Installed, settings: Settings
) -> AsyncIterator[Contest]:
    """Somebody else's."""
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
async def ours(settings: Settings, loop: str) -> AsyncIterator[Contest]:
    """Of cluster_pool."""
    async with contextlib.AsyncExitStack() as stack:
        redis = stack.enter_context(EmbeddedServer())
        b = await stack.enter_async_context(node(redis.url, "B", loop))
        readers = await stack.enter_async_context(clients())
        a = await stack.enter_async_context(node(redis.url, "A", loop, readers.gate))
        await readers.connect(b.hello["port"], NAMESPACE, settings.connections)
        await a.ask("know", first=0, count=settings.connections)
        yield Contest(a, {"A": a.pid, "B": b.pid, "Redis": redis.pid}, readers)
