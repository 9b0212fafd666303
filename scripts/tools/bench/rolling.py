"""A rolling restart of a cluster behind HAProxy, measured from where it counts: at the clients.

Eight ``serve`` processes, thousands of WebSockets that come back the moment they are closed,
confirmed sends and broadcasts all the while; restarted in two waves of four, in two ways: at the
pace of one budget for the cluster, and all at once.
"""

import asyncio
import contextlib
import itertools
import random
import shutil
import signal
import tempfile
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster_pool import ClusterPoolError, Publisher, SendResult
from tools.bench.comers import NAMESPACES, id_of, namespace_of
from tools.bench.stage import Settings, Tell
from tools.bench.table import Row
from tools.harness.haproxy import haproxy
from tools.harness.nodes import NodeProcess
from tools.harness.ports import accepts, free_ports
from tools.harness.programs import Program, program
from tools.harness.servers import RedisServer

NODES = 8
WAYS = ("one budget for the cluster", "everything at once")
AT_ONCE = 100_000.0
"""Closes per second that are no pace."""
ANNOUNCE = 3.0
"""Seconds; HAProxy looks once a second."""
GRACE = 90.0
SETTLED = 4.0
"""Seconds for HAProxy to see that restarted nodes are ready: two looks, and a little."""
SENDS_PER_SECOND, BROADCASTS_PER_SECOND = 100, 2
ARRIVAL = 5.0
"""Seconds after which a message that was delivered into an outbox counts as lost."""


def peak(times: Sequence[float], span: float = 1.0) -> int:
    """The most events within any ``span`` seconds."""
    ordered = sorted(times)
    return max(
        (bisect_right(ordered, at + span - 1e-9) - first for first, at in enumerate(ordered)),
        default=0,
    )


def mean_rate(times: Sequence[float], span: float = 10.0, skip: float = 1.0) -> float:
    """Events per second over ``span`` seconds in the middle, or as many as there are."""
    if not times:
        return 0.0
    start, end = min(times) + skip, max(times) - skip
    if end - start < skip:
        start, end = min(times), max(times)
    length = min(span, end - start)
    start += (end - start - length) / 2
    return sum(start <= at < start + length for at in times) / length if length > 0 else 0.0


def per_second(times: Sequence[float], start: float, end: float) -> list[tuple[float, float]]:
    """Events in each second from ``start`` on, four points a second, for a chart."""
    ordered = sorted(times)
    return [
        (at / 4, float(bisect_right(ordered, now + 0.5) - bisect_right(ordered, now - 0.5)))
        for at in range(int((end - start) * 4) + 1)
        for now in (start + at / 4,)
    ]


class Cluster:
    """The nodes, each started anew after each stop at the same ports, and who stands in front."""

    def __init__(self, redis: str, rate: float) -> None:
        self.front, *ports = free_ports(2 * NODES + 1)
        self.ports = list(zip(ports[:NODES], ports[NODES:], strict=True))
        self._redis = redis
        self._rate = rate
        self._nodes: list[NodeProcess] = []

    def _start(self, index: int) -> NodeProcess:
        port, agent = self.ports[index]
        return NodeProcess(
            self._redis,
            *("--node-id", f"node-{index}", "--port", str(port), "--agent-port", str(agent)),
            *("--close-rate", str(self._rate), "--grace", str(GRACE), "--announce", str(ANNOUNCE)),
            *("--log-level", "error"),
        )

    async def start(self) -> None:
        """All of them."""
        starts = [asyncio.to_thread(self._start, index) for index in range(NODES)]
        self._nodes = await asyncio.gather(*starts)

    async def restart(self, indexes: Iterable[int]) -> list[int]:
        """Stop some together by SIGTERM and start them again; gives their exit statuses."""

        def again(index: int) -> int:
            status, _ = self._nodes[index].finish(GRACE + 30)
            self._nodes[index] = self._start(index)
            return status

        for index in indexes:
            self._nodes[index].signal(signal.SIGTERM)
        return await asyncio.gather(*[asyncio.to_thread(again, index) for index in indexes])

    def kill(self) -> None:
        """Whatever they do."""
        for node in self._nodes:
            node.__exit__()


@contextlib.asynccontextmanager
async def _running(rate: float) -> AsyncIterator[tuple[Cluster, Publisher]]:
    """A cluster behind HAProxy; nothing of it is left behind."""
    with RedisServer() as redis, tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(redis.url, rate)
        try:
            await cluster.start()
            with haproxy(cluster.ports, cluster.front, Path(folder)):
                async with Publisher(redis.url) as publisher, asyncio.timeout(20) as patience:
                    while not accepts(cluster.front):  # noqa: ASYNC110  # a process
                        await asyncio.sleep(0.05)
                    patience.reschedule(None)
                    yield cluster, publisher
        finally:
            cluster.kill()


class Traffic:
    """Confirmed sends and broadcasts while it is entered, and which of them were lost."""

    def __init__(self, publisher: Publisher, clients: int) -> None:
        self._publisher = publisher
        self._clients = clients
        self._tasks: set[asyncio.Task[None]] = set()
        self._delivered: list[tuple[int, str]] = []
        self._broadcasts: list[str] = []
        self._numbers = itertools.count()

    async def __aenter__(self) -> "Traffic":
        self._pacers = [
            asyncio.create_task(self._steadily(SENDS_PER_SECOND, self._send)),
            asyncio.create_task(self._steadily(BROADCASTS_PER_SECOND, self._broadcast)),
        ]
        return self

    async def __aexit__(self, *error: object) -> None:
        for pacer in self._pacers:
            pacer.cancel()
        await asyncio.gather(*self._pacers, *self._tasks, return_exceptions=True)

    async def _steadily(self, rate: float, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            task = asyncio.create_task(work())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(1 / rate)

    async def _send(self) -> None:
        index, text = random.randrange(self._clients), f"send {next(self._numbers)}"
        where = (namespace_of(index), id_of(index))
        with contextlib.suppress(ClusterPoolError):
            if await self._publisher.send(*where, text, confirm=True) is SendResult.DELIVERED:
                self._delivered.append((index, text))

    async def _broadcast(self) -> None:
        text = f"broadcast {next(self._numbers)}"
        namespace = namespace_of(random.randrange(NAMESPACES))
        with contextlib.suppress(ClusterPoolError):
            if await self._publisher.broadcast_message(namespace, text):
                self._broadcasts.append(text)

    def lost(self, heard: dict[str, list[str]]) -> tuple[int, int]:
        """How many sends that were answered DELIVERED never came, and how many there were."""
        sets = {int(index): set(texts) for index, texts in heard.items()}
        lost = sum(text not in sets.get(index, ()) for index, text in self._delivered)
        return lost, len(self._delivered)

    def broadcast_share(self, heard: dict[str, list[str]]) -> float:
        """Of all members of all broadcasts, the part that heard them: who was away did not."""
        came = Counter(text for texts in heard.values() for text in texts)
        wanted = len(self._broadcasts) * self._clients / NAMESPACES
        return sum(came[text] for text in self._broadcasts) / wanted if wanted else 1.0


@dataclass
class Wave:
    """Half of the nodes restarted: when, and what the clients saw of it."""

    began: float
    ended: float
    closed: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)


@dataclass
class Trial:
    """One whole restart in one way."""

    waves: list[Wave] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    lost: tuple[int, int] = (0, 0)
    share: float = 0.0


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """What the clients see of a restart at the pace of the budget, beside one that has none."""
    if shutil.which("haproxy") is None:
        return [Row("rolling restart", "", [], wrong="haproxy is not installed")]
    connections, rate = settings.restarted, settings.close_rate
    trials: list[Trial] = []
    for way, pace in zip(WAYS, (rate, AT_ONCE), strict=True):
        tell(f"rolling, {way}: {NODES} nodes and {connections:,} clients")
        trials.append(await _trial(connections, pace, tell))
    ours, at_once = trials
    return _rows(ours, at_once, connections, rate)


async def _trial(connections: int, rate: float, tell: Tell) -> Trial:
    trial = Trial()
    async with _running(rate) as (cluster, publisher), program("tools.bench.comers") as comers:
        await comers.ask("come", port=cluster.front, count=connections)
        await comers.ask("forget")
        async with Traffic(publisher, connections) as traffic:
            for first in (0, NODES // 2):
                tell("rolling: restarting half of the nodes")
                began = time.monotonic()
                trial.statuses += await cluster.restart(range(first, first + NODES // 2))
                trial.waves.append(Wave(began, time.monotonic()))
                async with asyncio.timeout(GRACE):
                    while await comers.ask("open") < connections:  # noqa: ASYNC110  # a process
                        await asyncio.sleep(0.5)
                await asyncio.sleep(SETTLED)
        trial.report = await _settled(comers, traffic)
        await comers.ask("leave")
    heard = trial.report["heard"]
    trial.lost, trial.share = traffic.lost(heard), traffic.broadcast_share(heard)
    for wave in trial.waves:
        for name in ("closed", "back"):
            times = [at for at in trial.report[name] if wave.began <= at < wave.ended]
            setattr(wave, name, times)
    return trial


async def _settled(comers: Program, traffic: Traffic) -> dict[str, Any]:
    """What the clients saw, once the last message is there: it may be between two sockets yet."""
    deadline = time.monotonic() + ARRIVAL
    while True:
        report: dict[str, Any] = await comers.ask("report")
        if not traffic.lost(report["heard"])[0] or time.monotonic() > deadline:
            return report
        await asyncio.sleep(0.2)


@dataclass(frozen=True)
class Figure:
    """What is read off a trial, at which budget; ``beside``: also told of the one at once."""

    what: str
    unit: str
    of: Callable[[Trial, float], list[float]]
    target: str = ""
    beside: bool = True


def _cut(trial: Trial) -> int:
    return sum(n for code, n in trial.report["codes"].items() if code != "1012")


CLOSES = Figure("closes in any second", "", lambda t, _: [float(peak(w.closed)) for w in t.waves])
RECONNECTS = Figure(
    "reconnects in any second", "", lambda t, _: [float(peak(w.back)) for w in t.waves]
)
FIGURES = (
    CLOSES,
    Figure(
        *("mean rate ÷ budget over 10 s, cluster", "×"),
        lambda t, rate: [mean_rate(w.closed) / rate for w in t.waves],
        *("within 5 %", False),
    ),
    Figure(
        *("reconnects per second, peak ÷ mean", "×"),
        lambda t, _: [peak(w.back) / max(mean_rate(w.back), 1) for w in t.waves],
        *("≤ 1.15", False),
    ),
    RECONNECTS,
    Figure("connections cut", "", lambda t, _: [float(_cut(t))], "0"),
    Figure(
        *("drain time ÷ ideal, after the announcement", "×"),
        lambda t, rate: [
            (max(w.closed) - w.began - ANNOUNCE) / (len(w.closed) / rate) for w in t.waves
        ],
        *("≤ 1.10", False),
    ),
    Figure("messages lost of those answered DELIVERED", "", lambda t, _: [float(t.lost[0])], "0"),
    Figure(
        *("handshakes that were refused", ""),
        lambda t, _: [float(sum(t.report["refusals"].values()))],
    ),
    Figure("broadcasts heard by their members", "%", lambda t, _: [100 * t.share]),
)


def _rows(ours: Trial, at_once: Trial, connections: int, rate: float) -> list[Row]:
    rows = {}
    for figure in FIGURES:
        said = [f"target {figure.target}"] if figure.target else []
        if figure.beside:
            said.append(f"at once {max(figure.of(at_once, rate)):,.4g}")
        rows[figure] = Row(figure.what, figure.unit, figure.of(ours, rate), note="; ".join(said))
    rows[CLOSES].what += f", {NODES} nodes, {connections:,} connections, {rate:g}/s"
    rows[CLOSES].note += f"; target ≤ {1.1 * rate + NODES // 2:.0f}"
    if any(ours.statuses):
        rows[CLOSES].wrong = f"WRONG: exit statuses {ours.statuses}"
    rows[RECONNECTS].limit = rate
    length = max(max(one.waves[0].back) - one.waves[0].began for one in (ours, at_once)) + 1
    for way, trial in zip(WAYS, (ours, at_once), strict=True):
        began = trial.waves[0].began
        curve = per_second(trial.waves[0].back, began, began + length)
        rows[RECONNECTS].series[way] = curve
    return list(rows.values())
