"""Plain clients that move with their messages: a rolling restart, and the kill of a node.

Eight ``serve`` processes behind HAProxy, rooms of fifty clients with a history, half of the
messages to rooms and half to single clients; each client checks the numbers of what it gets.
"""

import asyncio
import random
import shutil
import signal
import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Any

from cluster_pool import ClusterPoolError, Publisher, SendResult
from tools.bench.rolling import GRACE, NODES, SETTLED, running
from tools.bench.stage import Settings, Tell
from tools.bench.table import Row
from tools.harness.comers import Sending
from tools.harness.programs import Program, program

ROOM = 50
HISTORY = "room-*=20000,120,64MiB,targeted"
PAUSE = 0.005
"""Seconds between two messages."""
AWAY = 2.0
"""Seconds that a client stays away at most, in one trial: then messages are parked."""
ARRIVAL = 20.0
"""Seconds after which a message that has not come counts as lost."""
TRIALS = (
    ("restart", "rolling restart", 0.0),
    ("restart", f"rolling restart, clients away for up to {AWAY:g} s", AWAY),
    ("kill", "kill -9 of one node in eight", 0.0),
)


def room_of(index: int) -> str:
    """The room of a client."""
    return f"room-{index // ROOM}"


class Senders(Sending):
    """Sends numbered messages; a number whose message was not sent is used again.

    Attributes:
        rooms, alone: how many messages each room, and each id alone, was sent.
        results: how often there was which result.
    """

    def __init__(self, publisher: Publisher, members: list[tuple[str, str]]) -> None:
        self._publisher = publisher
        self._members = members
        self._order: Counter[str] = Counter()
        self.rooms: Counter[str] = Counter()
        self.alone: Counter[str] = Counter()
        self.results: Counter[str] = Counter()

    async def _send_all(self) -> None:
        while True:
            room, id = random.choice(self._members)
            try:
                if random.random() < 0.5:
                    await asyncio.shield(self._broadcast(room))
                else:
                    await asyncio.shield(self._send(room, id))
            except ClusterPoolError as error:
                self.results[type(error).__name__] += 1
            await asyncio.sleep(PAUSE)

    async def _broadcast(self, room: str) -> None:
        self._order[room] += 1
        text = f"{self._order[room]} b {self.rooms[room] + 1}"
        await self._publisher.broadcast_message(room, text)
        self.rooms[room] += 1
        self.results["broadcast"] += 1

    async def _send(self, room: str, id: str) -> None:
        self._order[room] += 1
        text = f"{self._order[room]} t {self.alone[id] + 1}"
        result = await self._publisher.send(room, id, text)
        # One that is unreachable may be in the history, and comes with the next connection then.
        self.alone[id] += bool(result) or result is SendResult.UNREACHABLE
        self.results[result.value] += 1


@dataclass
class Trial:
    """The clients' report of one disturbance, and the results of the sends."""

    report: dict[str, Any]
    results: Counter[str]

    @property
    def slowest(self) -> float:
        """The 99th percentile of the handshakes of those that came back, in ms."""
        times = self.report["handshakes"]
        return 1000 * statistics.quantiles(times, n=100)[98] if len(times) > 1 else 0.0


async def _trial(connections: int, rate: float, how: str, absent: float) -> Trial:
    members = [(room_of(at), f"client-{at}") for at in range(connections)]
    async with (
        running(rate, "--history", HISTORY) as (fleet, front, publisher),
        program("tools.harness.movers") as movers,
    ):
        await movers.ask("come", port=front, members=members, absent=absent)
        async with Senders(publisher, members) as senders:
            await asyncio.sleep(2)
            if how == "kill":
                fleet.nodes["node-0"].signal(signal.SIGKILL)
                await asyncio.sleep(SETTLED)
            else:
                for name in list(fleet.nodes):
                    await fleet.replace(name, seconds=GRACE + 30)
                    await asyncio.sleep(SETTLED)
            async with asyncio.timeout(GRACE):
                while await movers.ask("away"):  # noqa: ASYNC110  # a process
                    await asyncio.sleep(0.2)
            await asyncio.sleep(2)
        report = await _settled(movers, senders) | await movers.ask("report")
        await movers.ask("leave")
    return Trial(report, senders.results)


async def _settled(movers: Program, senders: Senders) -> dict[str, Any]:
    """The clients' report, once the last message is there."""
    ends = asyncio.get_running_loop().time() + ARRIVAL
    while True:
        sent = {"rooms": senders.rooms, "alone": senders.alone}
        report: dict[str, Any] = await movers.ask("numbers", **sent)
        if not report["lost"] or asyncio.get_running_loop().time() > ends:
            return report
        await asyncio.sleep(0.2)


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """A rolling restart of all nodes, then the kill of one."""
    if shutil.which("haproxy") is None:
        return [Row("moves", "", [], wrong="haproxy is not installed")]
    connections, rate = settings.restarted, settings.close_rate
    made = []
    for how, what, absent in TRIALS:
        tell(f"moves: {NODES} nodes, {connections:,} clients: {what}")
        made += rows(what, await _trial(connections, rate, how, absent))
    return made


def rows(what: str, trial: Trial) -> list[Row]:
    """A row for each figure of a trial."""
    report, results = trial.report, trial.results
    moved = ", ".join(f"{count:,} × {code}" for code, count in report["codes"].items())
    sent = ", ".join(f"{count:,} {name}" for name, count in results.items())
    untold = report["lost"] > results[SendResult.UNREACHABLE.value]
    wrong = f"{report['lost']} messages lost" if untold else ""
    return [
        Row(
            *(f"{what}: messages lost", "", [float(report["lost"])]),
            wrong=wrong,
            note=f"of {report['got']:,} received; sent: {sent}; closed: {moved}",
        ),
        Row(
            *(f"{what}: messages twice", "", [float(report["twice"])]),
            note=f"at most {report['most_twice']} at one client",
        ),
        Row(f"{what}: messages out of order", "", [float(report["late"])]),
        Row(f"{what}: handshake of those that come back, p99", "ms", [trial.slowest]),
    ]
