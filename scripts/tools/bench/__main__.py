"""The command line of the bench."""

import argparse
import asyncio
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from cluster_pool.embedded import SERVER_VARIABLE, EmbeddedUnavailableError, server_binary
from tools.bench import (
    delivery,
    ghosts,
    idle,
    latency,
    machine,
    memory,
    peers,
    registry,
    scale,
    storm,
)
from tools.bench.cluster import Settings
from tools.bench.rolling import scenario as rolling
from tools.bench.table import Row, as_json, markdown

NAMES = (
    *delivery.NAMES,
    *("latency", "memory", "idle", "storm", "registry", "scale", "ghosts", "peers", "rolling"),
)
BUSY = 0.7
"""Load above which the head of the table warns."""


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures cluster_pool on this machine and prints a table.",
    )
    add = parser.add_argument
    add("--only", action="append", choices=NAMES, help="this scenario alone; may be repeated")
    add("--server", metavar="PROGRAM", help="such as redis-server, instead of the wheel's Valkey")
    add("--quick", action="store_true", help="fewer rounds of less: a look, not a measurement")
    add("--loop", choices=("uvloop", "asyncio", "both"), help="default: both, if uvloop is there")
    add("--rounds", type=_positive, help="of each scenario; the table has their median (12)")
    add("--connections", type=_positive, default=1000, help="that get the messages (1000)")
    add("--idle-connections", type=_positive, help="whose memory is measured (5000)")
    add("--idle-per-node", type=_positive, help="whose CPU is measured, on two nodes (10000)")
    add("--storm", type=_positive, help="connections that come at once (5000)")
    add("--nodes", type=_positive, help="to which the cluster grows, at least 2 (16)")
    add("--many", type=_positive, help="members to which a namespace grows (1000000)")
    add("--members", type=_positive, help="whose bytes in Redis are measured (100000)")
    add("--json", metavar="FILE", type=Path, help="write everything that was measured there")
    add("--restarted", type=_positive, help="connections in the rolling restart (4000)")
    add("--charts", metavar="FOLDER", type=Path, help="draw peers.svg and rolling.svg there")
    add("--profile", metavar="FOLDER", type=Path, help="profile the nodes' paths, as pstats files")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    quick = options.quick
    return Settings(
        rounds=options.rounds or (3 if quick else 12),
        connections=options.connections,
        messages=10 if quick else 15,
        bursts=10,
        single_sends=100 if quick else 300,
        idle=options.idle_connections or (1000 if quick else 5000),
        members=options.members or (10_000 if quick else 100_000),
        victims=1 if quick else 5,
        idle_each=options.idle_per_node or (1000 if quick else 10_000),
        idle_seconds=10.0 if quick else 40.0,
        storm=options.storm or (1000 if quick else 5000),
        nodes=max(2, options.nodes or (4 if quick else 16)),
        many=options.many or (50_000 if quick else 1_000_000),
        restarted=options.restarted or (1600 if quick else 4000),
        close_rate=120.0 if quick else 160.0,
        profile=str(options.profile) if options.profile else "",
    )


def _loops(asked: str | None) -> list[str]:
    there = find_spec("uvloop") is not None
    if asked == "uvloop" and not there:
        raise SystemExit("scripts/bench: uvloop is not installed")
    if asked in ("uvloop", "asyncio"):
        return [asked]
    return ["uvloop", "asyncio"] if there else ["asyncio"]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _too_many(settings: Settings, wanted: set[str]) -> Iterator[str]:
    """Why the descriptor limit forbids what is asked, before anything starts."""
    needs = {
        "delivery": settings.connections,
        "memory": settings.idle + memory.FIRST,
        "idle": settings.idle_each + memory.FIRST,
        "storm": settings.storm,
        "scale": 4 * settings.connections,
        "ghosts": settings.connections * settings.victims,
        "peers": settings.connections,
        "rolling": 2 * settings.restarted,  # HAProxy has two for each
    }
    for name, connections in needs.items():
        if name in wanted or (name == "delivery" and wanted & set(delivery.NAMES)):
            problem = machine.too_few_descriptors(connections)
            if problem:
                yield f"{name}: {problem}"


async def _measure(
    settings: Settings, loops: list[str], wanted: set[str], charts: Path | None
) -> list[Row]:
    rows: list[Row] = []
    fresh_rounds = min(settings.rounds, 3)
    for loop in loops:
        if wanted & set(delivery.NAMES):
            rows += await delivery.measure(settings, loop, wanted, _tell)
    for loop in loops:
        if "latency" in wanted:
            rows += await latency.measure(settings, loop, _tell)
    for loop in loops:
        if "memory" in wanted:
            rows += await memory.measure(settings, loop, fresh_rounds, _tell)
    for loop in loops:
        if "idle" in wanted:
            rows += await idle.measure(settings, loop, _tell)
    for loop in loops:
        if "storm" in wanted:
            rows += await storm.measure(settings, loop, fresh_rounds, _tell)
    if "registry" in wanted:
        rows += await registry.measure(settings, fresh_rounds, _tell)
    if "scale" in wanted:
        rows += await scale.measure(settings, loops[0], _tell)
        installed = shutil.which("redis-server")
        if installed and SERVER_VARIABLE not in os.environ:
            rows += await scale.measure(settings, loops[0], _tell, installed)
    if "ghosts" in wanted:
        rows += await ghosts.measure(settings, loops[0], _tell)
    if "peers" in wanted:
        rows += await peers.measure(settings, loops[0], _tell)
    if "rolling" in wanted:
        rows += await rolling.measure(settings, _tell, charts)
    return rows


def main() -> int:
    """Status 0 when every message arrived; 1 when a check failed; 2 for what cannot run; 130."""
    options = _parser().parse_args()
    if sys.platform != "linux":
        _tell("scripts/bench: needs Linux, whose CPU clocks of other processes it reads")
        return 2
    settings = _settings(options)
    wanted = set(options.only or NAMES)
    for problem in _too_many(settings, wanted):
        _tell(f"scripts/bench: {problem}")
        return 2
    for folder in filter(None, (options.profile, options.charts)):
        folder.mkdir(parents=True, exist_ok=True)
    if options.server:
        os.environ[SERVER_VARIABLE] = options.server
    try:
        server = server_binary()
    except EmbeddedUnavailableError as error:
        _tell(f"scripts/bench: {error}")
        return 2
    load = machine.load()
    loops = _loops(options.loop)
    try:
        rows = asyncio.run(_measure(settings, loops, wanted, options.charts))
    except KeyboardInterrupt:
        return 130
    about = machine.description(server)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"load before: {load:.2f}" + (" - others were at work" if load > BUSY else ""))
    print()
    print(markdown(rows))
    if options.json:
        options.json.write_text(as_json({**about, "load": f"{load:.2f}"}, rows))
    if options.charts and "peers" in wanted:
        (options.charts / "peers.svg").write_text(peers.drawn(rows, about))
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
