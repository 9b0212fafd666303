"""A rolling restart of a cluster behind HAProxy, measured from where it counts: at the clients.

Eight ``serve`` processes, thousands of WebSockets that come back the moment they are closed,
confirmed sends and broadcasts all the while; restarted in two waves of four, in two ways: at the
pace of one budget for the cluster, and all at once.
"""

import asyncio
import contextlib
import itertools
import shutil
import tempfile
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster_pool import ClusterPoolError, Publisher
from tools.bench.stage import Settings, Tell
from tools.bench.table import Row
from tools.harness.comers import Mail
from tools.harness.haproxy import haproxy
from tools.harness.network import Network
from tools.harness.nodes import Fleet, in_thread
from tools.harness.ports import accepts, free_port
from tools.harness.programs import Program, program, python_path
from tools.harness.servers import RedisServer

NODES, NAMESPACES = 8, 20
WAYS = ("one budget for the cluster", "everything at once")
AT_ONCE = 100_000.0
"""Closes per second that are no pace."""
ANNOUNCE = 3.0
"""Seconds; HAProxy looks once a second."""
GRACE = 90.0
SETTLED = 4.0
"""Seconds for HAProxy to see that restarted nodes are ready: two looks, and a little."""
MAIL_PAUSE, BROADCAST_PAUSE = 0.008, 0.5
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


@dataclass
class Wave:
    """Half of the nodes restarted: when, and what the clients saw of it."""

    began: float
    ended: float
    closed: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)


@dataclass
class Trial:
    """One whole restart in one way; ``heard`` is the share of broadcasts that members heard."""

    waves: list[Wave]
    report: dict[str, Any]
    lost: int
    heard: float

    @property
    def cut(self) -> int:
        """Connections that ended without a word about why."""
        return sum(count for code, count in self.report["codes"].items() if code != "1012")


@dataclass
class Cluster:
    """Nodes behind HAProxy.

    Attributes:
        front: the port of HAProxy.
        redis, network: the server, and the network before it, which the nodes alone go through,
            and only if that was asked for.
        publisher: a sender, straight to Redis.
    """

    fleet: Fleet
    front: int
    redis: RedisServer
    network: Network
    publisher: Publisher


@contextlib.asynccontextmanager
async def running(rate: float, *options: str, through: bool = False) -> AsyncIterator[Cluster]:
    """Nodes behind HAProxy, and a sender; nothing of it is left behind.

    Args:
        through: the nodes reach Redis through a network that can be cut.
    """
    pace = ("--close-rate", str(rate), "--announce", str(ANNOUNCE), "--grace", str(GRACE), *options)
    names = [f"node-{at}" for at in range(NODES)]
    with (
        RedisServer() as redis,
        tempfile.TemporaryDirectory() as folder,
        contextlib.ExitStack() as s,
    ):
        async with redis.network() as network, Publisher(redis.url) as publisher:
            url, found = network.url if through else redis.url, {"PYTHONPATH": python_path()}
            fleet = await in_thread(lambda: Fleet(url, names, s, *pace, environment=found))
            front = free_port()
            with haproxy(fleet.addresses, front, Path(folder)):
                async with asyncio.timeout(20):
                    while not accepts(front):  # noqa: ASYNC110  # a process
                        await asyncio.sleep(0.05)
                yield Cluster(fleet, front, redis, network, publisher)


@contextlib.asynccontextmanager
async def _broadcasts(publisher: Publisher) -> AsyncIterator[list[str]]:
    """Broadcasts to one namespace after another; gives those that were handed to a node."""
    said: list[str] = []

    async def go_on() -> None:
        for at in itertools.count():
            with contextlib.suppress(ClusterPoolError):
                if await publisher.broadcast_message(_namespace(at), f"broadcast {at}"):
                    said.append(f"broadcast {at}")
            await asyncio.sleep(BROADCAST_PAUSE)

    task = asyncio.create_task(go_on())
    try:
        yield said
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _namespace(index: int) -> str:
    return f"room-{index % NAMESPACES}"


async def _trial(connections: int, rate: float, tell: Tell) -> Trial:
    waves = []
    members = [(_namespace(at), f"client-{at}") for at in range(connections)]
    async with (
        running(rate) as cluster,
        program("tools.harness.comers") as comers,
    ):
        fleet, publisher = cluster.fleet, cluster.publisher
        await comers.ask("come", port=cluster.front, members=members)
        async with Mail(publisher, members, MAIL_PAUSE) as mail, _broadcasts(publisher) as said:
            names = list(fleet.nodes)
            for half in (names[::2], names[1::2]):
                tell("rolling: restarting half of the nodes")
                began = time.monotonic()
                await asyncio.gather(*[fleet.replace(name, seconds=GRACE + 30) for name in half])
                waves.append(Wave(began, time.monotonic()))
                async with asyncio.timeout(GRACE):
                    while await comers.ask("away"):  # noqa: ASYNC110  # a process
                        await asyncio.sleep(0.5)
                await asyncio.sleep(SETTLED)
        report = await _settled(comers, mail)
        await comers.ask("leave")
    for wave in waves:
        wave.closed, wave.back = (
            [at for at in report[name] if wave.began <= at < wave.ended]
            for name in ("closed", "back")
        )
    heard = sum(report["heard"].get(text, 0) for text in said)
    share = heard * NAMESPACES / connections / len(said) if said else 1.0
    return Trial(waves, report, len(mail.lost(report["heard"])), share)


async def _settled(comers: Program, mail: Mail) -> dict[str, Any]:
    """The clients' report, once the last message is there: it may still be between two sockets."""
    deadline = time.monotonic() + ARRIVAL
    while True:
        report: dict[str, Any] = await comers.ask("report")
        if not mail.lost(report["heard"]) or time.monotonic() > deadline:
            return report
        await asyncio.sleep(0.2)


@dataclass(frozen=True)
class Figure:
    """A figure of a trial, with its budget; ``beside``: shown for the restart at once, too."""

    what: str
    unit: str
    target: str
    beside: bool
    of: Callable[[Trial, float], list[float]]


FIGURES = (
    Figure(
        *("closes in any second", "", "≤ 1.10 × the budget and one for each drainer", True),
        lambda trial, _: [float(peak(wave.closed)) for wave in trial.waves],
    ),
    Figure(
        *("mean rate ÷ budget over 10 s, cluster", "×", "within 5 %", False),
        lambda trial, rate: [mean_rate(wave.closed) / rate for wave in trial.waves],
    ),
    Figure(
        *("reconnects per second, peak ÷ mean", "×", "≤ 1.15", False),
        lambda trial, _: [peak(w.back) / max(mean_rate(w.back), 1) for w in trial.waves],
    ),
    Figure(
        *("reconnects in any second", "", "", True),
        lambda trial, _: [float(peak(wave.back)) for wave in trial.waves],
    ),
    Figure("connections cut", "", "0", True, lambda trial, _: [float(trial.cut)]),
    Figure(
        *("drain time ÷ ideal, after the announcement", "×", "≤ 1.10", False),
        lambda trial, rate: [
            (max(wave.closed) - wave.began - ANNOUNCE) / (len(wave.closed) / rate)
            for wave in trial.waves
        ],
    ),
    Figure(
        "messages lost of those answered DELIVERED", "", "0", True, lambda t, _: [float(t.lost)]
    ),
    Figure(
        *("handshakes that were refused", "", "", True),
        lambda trial, _: [float(sum(trial.report["refused"].values()))],
    ),
    Figure("broadcasts heard by their members", "%", "", True, lambda t, _: [100 * t.heard]),
)


async def measure(settings: Settings, loop: str, tell: Tell) -> list[Row]:
    """A restart at the pace of the budget, as clients see it, beside one without a budget."""
    if shutil.which("haproxy") is None:
        return [Row("rolling restart", "", [], wrong="haproxy is not installed")]
    connections, rate = settings.restarted, settings.close_rate
    tell(f"rolling: {NODES} nodes, {connections:,} clients, {rate:g}/s; then at once")
    ours = await _trial(connections, rate, tell)
    return rows(ours, await _trial(connections, AT_ONCE, tell), rate)


def rows(ours: Trial, at_once: Trial, rate: float) -> list[Row]:
    """A row for each figure; one of them has the curves of both ways."""
    made = []
    for figure in FIGURES:
        said = [f"target {figure.target}"] if figure.target else []
        if figure.beside:
            said.append(f"at once {max(figure.of(at_once, rate)):,.4g}")
        made.append(Row(figure.what, figure.unit, figure.of(ours, rate), note="; ".join(said)))
    (curve,) = [row for row in made if row.what == "reconnects in any second"]
    curve.limit = rate
    firsts = [trial.waves[0] for trial in (ours, at_once)]
    length = max(max(wave.back) - wave.began for wave in firsts) + 1
    for way, wave in zip(WAYS, firsts, strict=True):
        curve.series[way] = per_second(wave.back, wave.began, wave.began + length)
    return made
