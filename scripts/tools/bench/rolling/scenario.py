"""The restarts, one after another, and what they come to."""

import asyncio
import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from cluster_pool import Publisher
from tools.bench import chart
from tools.bench.children import Child
from tools.bench.cluster import HOST, Settings
from tools.bench.rolling.figures import (
    between,
    longest_gap,
    mean_rate,
    peak,
    per_second,
)
from tools.bench.rolling.ledger import Renewals, call_cost
from tools.bench.rolling.stage import ANNOUNCE, NODES, Stage, stage
from tools.bench.rolling.traffic import Traffic
from tools.bench.table import Row

WAYS: Final = {
    "shared": "cluster_pool: one budget for the cluster",
    "per-node": "a pace for each node, shared with nobody",
    "at-once": "everything at once",
}
WAVES: Final = (slice(0, NODES // 2), slice(NODES // 2, NODES))
ONE_NODE_SECONDS: Final = 12.0
FREEZE_AFTER: Final = 5.0
FROZEN: Final = 8.0
SETTLE_TIMEOUT: Final = 90.0
ARRIVAL: Final = 5.0
"""Seconds after which a message that was delivered into an outbox counts as lost."""
SETTLED: Final = 4.0
"""Seconds for HAProxy to see that restarted nodes are ready: two looks, and a little."""


@dataclass
class Wave:
    """Half of the nodes restarted: when, and what the clients saw of it."""

    began: float
    ended: float
    closed: list[float] = field(default_factory=list)
    back: list[float] = field(default_factory=list)
    renewals: float = 0.0


@dataclass
class Trial:
    """One whole restart in one way."""

    way: str
    waves: list[Wave] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    report: dict[str, Any] = field(default_factory=dict)
    lost: tuple[int, int] = (0, 0)
    share: float = 0.0
    one_node: float = 0.0
    frozen: tuple[float, float] = (0.0, 0.0)
    call_ms: float = 0.0


async def measure(
    settings: Settings, tell: Callable[[str], None], charts: Path | None
) -> list[Row]:
    """Every row of the target table, beside what the other two ways come to."""
    if shutil.which("haproxy") is None:
        return [Row("rolling restart", "", [], wrong="haproxy is not installed")]
    connections, rate = settings.restarted, settings.close_rate
    trials = {way: await _trial(way, connections, rate, tell) for way in WAYS}
    if charts is not None:
        picture = _picture(list(trials.values()), rate)
        await asyncio.to_thread((charts / "rolling.svg").write_text, picture)
    return _rows(trials, connections, rate)


async def _trial(way: str, connections: int, rate: float, tell: Callable[[str], None]) -> Trial:
    trial = Trial(way)
    async with contextlib.AsyncExitStack() as stack:
        tell(f"rolling, {way}: starting {NODES} nodes and {connections:,} clients")
        cluster = await stack.enter_async_context(stage(way, rate))
        crowd = await Child.start("clients", package="tools.bench.rolling")
        stack.push_async_callback(crowd.stop)
        await crowd.ask("connect", host=HOST, port=cluster.port, count=connections)
        publisher = await stack.enter_async_context(Publisher(cluster.redis.url))
        admin = await stack.enter_async_context(Redis.from_url(cluster.redis.url))
        if way == "shared":
            trial.call_ms = await call_cost(admin, NODES // 2, NODES)
            trial.one_node = await _one_node(cluster, crowd, publisher, connections)
        await crowd.ask("forget")
        traffic = Traffic(publisher, connections)
        async with traffic:
            for wave in WAVES:
                tell(f"rolling, {way}: restarting half of the nodes")
                trial.waves.append(await _wave(cluster, wave, admin, trial))
                await _all_open(crowd, connections)
                await asyncio.sleep(SETTLED)
        trial.report = await _settled_report(crowd, traffic)
        trial.lost = traffic.lost(trial.report["heard"])
        trial.share = traffic.broadcast_share(trial.report["heard"])
        for done in trial.waves:
            done.closed = between(trial.report["closed"], done.began, done.ended)
            done.back = between(trial.report["back"], done.began, done.ended)
        if way == "shared":
            tell("rolling: freezing Redis in the middle of a drain")
            trial.frozen = await _frozen(cluster, crowd, publisher, rate)
        await crowd.ask("stop")
    return trial


async def _wave(cluster: Stage, wave: slice, admin: Redis, trial: Trial) -> Wave:
    began = time.monotonic()
    async with Renewals(admin) as renewals:
        trial.statuses += await cluster.restart(cluster.nodes[wave])
    return Wave(began, time.monotonic(), renewals=renewals.per_second())


async def _all_open(crowd: Child, connections: int) -> None:
    async with asyncio.timeout(SETTLE_TIMEOUT):
        while (await crowd.ask("open"))["open"] < connections:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.5)


async def _settled_report(crowd: Child, traffic: Traffic) -> dict[str, Any]:
    """What the clients saw, once the last message is there: it may be between two sockets yet."""
    deadline = time.monotonic() + ARRIVAL
    while True:
        report = await crowd.ask("report")
        if not traffic.lost(report["heard"])[0] or time.monotonic() > deadline:
            return report
        await asyncio.sleep(0.2)


async def _one_node(cluster: Stage, crowd: Child, publisher: Publisher, connections: int) -> float:
    """The mean rate of one node that drains alone, to the rate of its lease."""
    await crowd.ask("forget")
    node = cluster.nodes[-1].id
    rate = connections / NODES / (ONE_NODE_SECONDS + 3)
    await publisher.drain_node(node, rate, announce=0)
    await asyncio.sleep(ONE_NODE_SECONDS)
    await publisher.cancel_drain(node)
    await _all_open(crowd, connections)
    closed: list[float] = (await crowd.ask("report"))["closed"]
    return mean_rate(closed, skip=0.5) / rate


async def _frozen(
    cluster: Stage, crowd: Child, publisher: Publisher, rate: float
) -> tuple[float, float]:
    """Redis frozen while half of the nodes drain: the peak to the budget, and the longest pause."""
    await crowd.ask("forget")
    chosen = [node.id for node in cluster.nodes[WAVES[0]]]
    await asyncio.gather(*[publisher.drain_node(node, rate, announce=0) for node in chosen])
    await asyncio.sleep(FREEZE_AFTER)
    pid = cluster.redis.pid
    os.kill(pid, signal.SIGSTOP)
    frozen = time.monotonic()
    try:
        await asyncio.sleep(FROZEN)
    finally:
        os.kill(pid, signal.SIGCONT)
    thawed = time.monotonic()
    await asyncio.sleep(FREEZE_AFTER)
    closed: list[float] = (await crowd.ask("report"))["closed"]
    around = between(closed, frozen - 1, thawed + FREEZE_AFTER / 2)
    return peak(around) / rate, longest_gap(around)


def _rows(trials: dict[str, Trial], connections: int, rate: float) -> list[Row]:
    ours, others = trials["shared"], [trials["per-node"], trials["at-once"]]
    drainers = NODES // 2
    limit = 1.1 * rate + drainers
    refused = sum(ours.report["refusals"].values())

    def beside(figure: Callable[[Trial], float], digits: int = 2) -> str:
        return ", ".join(f"{one.way} {figure(one):.{digits}f}" for one in others)

    def peaks(trial: Trial) -> list[float]:
        return [float(peak(wave.closed)) for wave in trial.waves]

    def evenness(trial: Trial) -> list[float]:
        return [peak(wave.back) / max(mean_rate(wave.back), 1) for wave in trial.waves]

    def to_ideal(trial: Trial) -> list[float]:
        return [
            (max(wave.closed) - wave.began - ANNOUNCE) / (len(wave.closed) / rate)
            for wave in trial.waves
        ]

    def cut(trial: Trial) -> float:
        return float(sum(n for code, n in trial.report["codes"].items() if code != "1012"))

    about = f"{NODES} nodes, {connections:,} connections, {rate:g}/s"
    lost = "; ".join(f"{one.way} {one.lost[0]:,} of {one.lost[1]:,}" for one in others)
    wrong = "" if set(ours.statuses) <= {0} else f"WRONG: exit statuses {ours.statuses}"
    return [
        Row(
            "closes in any second",
            "",
            peaks(ours),
            wrong=wrong,
            note=f"{about}; target ≤ {limit:.0f}; {beside(lambda t: max(peaks(t)), 0)}",
        ),
        Row(
            "mean rate ÷ lease over 10 s, one node", "×", [ours.one_node], note="target within 2 %"
        ),
        Row(
            "mean rate ÷ budget over 10 s, cluster",
            "×",
            [mean_rate(wave.closed) / rate for wave in ours.waves],
            note="target within 5 %",
        ),
        Row(
            "reconnects per second, peak ÷ mean",
            "×",
            evenness(ours),
            note="target ≤ 1.15",
        ),
        Row(
            "reconnects in any second",
            "",
            [float(peak(wave.back)) for wave in ours.waves],
            note=beside(lambda t: max(float(peak(wave.back)) for wave in t.waves), 0),
        ),
        Row("connections cut", "", [cut(ours)], note=f"target 0; {beside(cut, 0)}"),
        Row(
            "drain time ÷ ideal, after the announcement",
            "×",
            to_ideal(ours),
            note="target ≤ 1.10",
        ),
        Row(
            "leases asked per second and drainer",
            "",
            [w.renewals for w in ours.waves],
            note="target ≤ 1",
        ),
        Row(
            "time of Redis for one lease",
            "ms",
            [ours.call_ms],
            note=f"target ≤ 0.5; {NODES // 2} drainers, {NODES} nodes",
        ),
        Row(
            "Redis frozen for 8 s in a drain: closes in any second ÷ budget",
            "×",
            [ours.frozen[0]],
            note="target ≤ 1.10",
        ),
        Row(
            "the same: longest time without a close", "s", [ours.frozen[1]], note="target: no stall"
        ),
        Row(
            "messages lost of those answered DELIVERED",
            "",
            [float(ours.lost[0])],
            note=f"target 0, of {ours.lost[1]:,}; {lost}",
        ),
        Row(
            "handshakes that were refused",
            "",
            [float(refused)],
            note=beside(lambda t: float(sum(t.report["refusals"].values())), 0),
        ),
        Row(
            "broadcasts heard by their members",
            "%",
            [100 * ours.share],
            note=beside(lambda t: 100 * t.share, 1) + "; who is away hears nothing",
        ),
    ]


def _picture(trials: list[Trial], rate: float) -> str:
    """Reconnections per second over the first wave of each way."""
    length = max(max(trial.waves[0].back) - trial.waves[0].began for trial in trials) + 1
    series = {}
    for trial in trials:
        began = trial.waves[0].began
        series[WAYS[trial.way]] = per_second(trial.waves[0].back, began, began + length)
    return chart.timeline(
        series,
        f"{NODES // 2} of {NODES} nodes restart together; dashed: the budget of the cluster",
        "reconnections per second",
        "seconds since SIGTERM",
        rate,
        panels=True,
    )
