"""Plain clients that move with their messages, whatever happens to them, to the nodes or to Redis.

Eight ``serve`` processes behind HAProxy, rooms of fifty clients with a history, half of the
messages to rooms and half to single clients; each client checks the numbers of what it gets, and
is told by the application of ``serve`` what that knows to be missing.
"""

import asyncio
import random
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cluster_pool import BackplaneUnavailableError, Publisher, SendResult
from tools.bench import disturbances
from tools.bench.disturbances import Disturbance
from tools.bench.rolling import NODES
from tools.bench.stage import Settings, Tell, percentile
from tools.bench.table import Row
from tools.harness.comers import Sending
from tools.harness.linux import Busy
from tools.harness.programs import Program

PAUSE = 0.005
"""Seconds between two messages."""
ARRIVAL = 20.0
"""Seconds after which a message that has not come counts as lost."""
MAYBE = {
    SendResult.UNREACHABLE,
    SendResult.REFUSED,
    SendResult.TIMED_OUT,
}
"""Results that say: it may be in the history."""


class Senders(Sending):
    """Sends numbered messages; a number whose message was not sent is used again.

    Attributes:
        rooms, alone: how many messages each room, and each id alone, was sent.
        unsure: kind, room or id, and number of those that may not come, as the result says.
        results: how often there was which result.
    """

    def __init__(self, publisher: Publisher, members: list[tuple[str, str]]) -> None:
        self._publisher = publisher
        self._members = members
        self._order: Counter[str] = Counter()
        self.rooms: Counter[str] = Counter()
        self.alone: Counter[str] = Counter()
        self.unsure: list[tuple[str, str, int]] = []
        self.results: Counter[str] = Counter()

    async def _send_all(self) -> None:
        while True:
            room, id = random.choice(self._members)
            if random.random() < 0.5:
                await asyncio.shield(self._broadcast(room))
            else:
                await asyncio.shield(self._send(room, id))
            await asyncio.sleep(PAUSE)

    async def _broadcast(self, room: str) -> None:
        async def publish(text: str) -> str:
            await self._publisher.broadcast_message(room, text)
            return "broadcast"

        await self._numbered(room, "b", room, self.rooms, publish)

    async def _send(self, room: str, id: str) -> None:
        async def send(text: str) -> SendResult:
            return await self._publisher.send(room, id, text)

        await self._numbered(room, "t", id, self.alone, send)

    async def _numbered(
        self,
        room: str,
        kind: str,
        name: str,
        numbers: Counter[str],
        send: Callable[[str], Awaitable[SendResult | str]],
    ) -> None:
        self._order[room] += 1
        number = numbers[name] + 1
        try:
            result = await send(f"{self._order[room]} {kind} {number}")
            maybe = result in MAYBE
            self.results[getattr(result, "value", str(result))] += 1
        except BackplaneUnavailableError as error:
            result, maybe = "", error.maybe_executed
            self.results["sent, perhaps" if maybe else "not sent"] += 1
        if maybe:
            self.unsure.append((kind, name, number))
        numbers[name] += bool(result) or maybe


@dataclass
class Trial:
    """The clients' report of one disturbance, the results of the sends, and how busy the CPUs of
    the machine were."""

    report: dict[str, Any]
    results: Counter[str]
    busy: float = 0.0


async def _trial(one: Disturbance, settings: Settings) -> Trial:
    async with disturbances.scene(one, settings) as scene:
        busy = Busy()
        async with Senders(scene.cluster.publisher, scene.members) as senders:
            await asyncio.sleep(2)
            await one.happen(scene)
            await scene.away()
            await asyncio.sleep(2)
        share = busy.share()
        report = await settled(scene.movers, senders) | await scene.movers.ask("report")
    return Trial(report, senders.results, share)


async def settled(movers: Program, senders: Senders) -> dict[str, Any]:
    """The clients' report, once the last message is there."""
    ends = asyncio.get_running_loop().time() + ARRIVAL
    while True:
        sent = {"rooms": senders.rooms, "alone": senders.alone, "unsure": senders.unsure}
        report: dict[str, Any] = await movers.ask("numbers", **sent)
        if not report["lost"] or asyncio.get_running_loop().time() > ends:
            return report
        await asyncio.sleep(0.2)


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """One disturbance after another, each with fresh nodes."""
    if shutil.which("haproxy") is None:
        return [Row("moves", "", [], wrong="haproxy is not installed")]
    made = []
    for one in disturbances.ALL:
        tell(f"moves: {NODES} nodes, {settings.restarted:,} clients: {one.what}")
        made += rows(one.what, await _trial(one, settings))
    return made


def rows(what: str, trial: Trial) -> list[Row]:
    """A row for each figure of a trial. A message is lost without a fault if its sender, or its
    client, is told that it may be."""
    report = trial.report
    silent = report["untold"]
    whole = [1000 * seconds for seconds in report["whole"]]
    made = [
        Row(
            *(f"{what}: messages lost", "", [float(report["lost"])]),
            wrong=f"WRONG: {silent} lost of which nobody was told" if silent else "",
            note=f"of {report['got']:,} received; sent: {_counts(trial.results)}; "
            f"{report['doubtful']:,} more did not come, as their sender was told; "
            f"the machine {100 * trial.busy:.0f} % busy",
        ),
        Row(
            *(f"{what}: of these, clients were not told", "", [float(silent)]),
            note=f"closed: {_counts(report['codes']) or 'none'}; "
            f"told: {_counts(report['words']) or 'nothing'}",
        ),
        Row(
            *(f"{what}: messages twice", "", [float(report["twice"])]),
            note=f"at most {report['most_twice']} at one client",
        ),
        Row(f"{what}: messages out of order", "", [float(report["late"])]),
    ]
    return made + [_time(what, whole, share) for share in (0.5, 0.99) if whole]


def _time(what: str, times: Sequence[float], share: float) -> Row:
    """How long it took those that came back until they were whole."""
    figure = f"{what}: from reconnect until whole, p{100 * share:.0f}"
    return Row(figure, "ms", [percentile(times, share)], note=f"of {len(times):,}")


def _counts(numbers: dict[str, int]) -> str:
    return ", ".join(f"{count:,} × {name}" for name, count in numbers.items())
