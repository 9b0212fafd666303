"""The command line of the bench."""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from cluster_pool.embedded import SERVER_VARIABLE, EmbeddedUnavailableError, server_binary
from tools.bench import (
    accounts,
    delivery,
    histories,
    idle,
    latency,
    machine,
    moves,
    peers,
    rivals,
    rolling,
    rooms,
    scale,
    servers,
    shards,
    storm,
    watched,
)
from tools.bench.stage import QUICK, Settings
from tools.bench.table import Row, as_json, markdown
from tools.harness.linux import too_few_descriptors

EACH_LOOP = {"latency": latency, "idle": idle, "storm": storm, "rooms": rooms}
ONE_LOOP = {
    "scale": scale,
    "watched": watched,
    "shards": shards,
    "peers": peers,
    "rolling": rolling,
    "moves": moves,
    "rivals": rivals,
    "histories": histories,
    "accounts": accounts,
}
SERVERS = "servers"
"""Measured only if it is asked for: it needs FastAPI and the ASGI servers."""
NAMES = (*delivery.NAMES, *EACH_LOOP, *ONE_LOOP, SERVERS)
BUSY = 0.7
"""Load above which the head of the table warns."""
SIZES = {
    "--rounds": "of each; the table has their median",
    "--connections": "that get messages",
    "--idle": "connections that say nothing",
    "--storm": "connections that come at once, and that join rooms",
    "--nodes": "of scale, at least 2",
    "--members": "of scale and watched, in one namespace",
    "--namespaces": "of shards, of one node",
    "--restarted": "connections of rolling, moves and rivals",
    "--accounts": "connections of accounts, to each of two nodes",
}
EPILOG = """\
Another tree of the package is measured by the same bench when PYTHONPATH names its folder:
  PYTHONPATH=/path/to/older/checkout scripts/bench --only broadcast --only targeted

exit status: 0 every message arrived, 1 a check failed, 2 it cannot run, 130 interrupted
"""


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


def _scenarios() -> Iterator[str]:
    """A description of each scenario, from its own docstring."""
    for name in NAMES:
        module = {**EACH_LOOP, **ONE_LOOP, SERVERS: servers}.get(name, delivery)
        about = delivery.ABOUT.get(name) or str(module.__doc__).split("\n\n")[0]
        yield f"  {name:<14} {' '.join(about.split())}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures cluster_pool on this machine and prints a table.",
        epilog="scenarios:\n" + "\n".join(_scenarios()) + f"\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", action="append", choices=NAMES, metavar="SCENARIO", help="may be repeated")
    add("--quick", action="store_true", help="fewer rounds of less: a look, not a measurement")
    add("--loop", choices=("uvloop", "asyncio", "both"), help="default: both, if uvloop is there")
    for option, about in SIZES.items():
        usual = getattr(Settings, option.removeprefix("--"))
        add(option, type=_positive, metavar="N", help=f"{about} ({usual})")
    add("--server", metavar="PROGRAM", help="such as redis-server, instead of the wheel's Valkey")
    add("--json", metavar="FILE", type=Path, help="write everything that was measured there")
    add("--charts", metavar="FOLDER", type=Path, help="draw peers.svg and rolling.svg there")
    add("--profile", metavar="FOLDER", type=Path, help="profile the nodes' paths, as pstats files")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    names = [option.removeprefix("--") for option in SIZES]
    asked = {name: getattr(options, name) for name in names if getattr(options, name)}
    profile = str(options.profile) if options.profile else ""
    return replace(QUICK if options.quick else Settings(), **asked, profile=profile)


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
        **dict.fromkeys((*delivery.NAMES, "latency", "peers"), settings.connections),
        "idle": settings.idle + idle.FIRST,
        "storm": settings.storm,
        "rooms": 0,
        "scale": 2 * settings.connections,
        "shards": 0,
        "watched": 0,
        SERVERS: max(settings.connections, settings.idle + idle.FIRST, settings.storm),
        "rolling": 2 * settings.restarted,  # HAProxy has two for each
        "moves": 2 * settings.restarted,
        "rivals": 2 * settings.restarted,
        "histories": 0,
        "accounts": settings.accounts,
    }
    for name in NAMES:
        if name in wanted and (problem := too_few_descriptors(needs[name])):
            yield f"{name}: {problem}"


async def _measure(settings: Settings, loops: list[str], wanted: set[str]) -> list[Row]:
    rows: list[Row] = []
    if wanted & set(delivery.NAMES):
        for loop in loops:
            rows += await delivery.measure(settings, loop, _tell, wanted)
    for name, scenario in EACH_LOOP.items():
        for loop in loops if name in wanted else ():
            rows += await scenario.measure(settings, loop, _tell)
    for name, scenario in ONE_LOOP.items():
        if name in wanted:
            rows += await scenario.measure(settings, loops[0], _tell)
    if SERVERS in wanted:
        rows += await servers.measure(settings, loops[0], _tell)
    return rows


def main() -> int:
    """Measure what is wanted; gives the exit status."""
    options = _parser().parse_args()
    if sys.platform != "linux":
        _tell("scripts/bench: needs Linux, whose CPU clocks of other processes it reads")
        return 2
    settings = _settings(options)
    wanted = set(options.only or NAMES) - (set() if options.only else {SERVERS})
    for problem in _too_many(settings, wanted):
        _tell(f"scripts/bench: {problem}")
        return 2
    if options.charts and find_spec("matplotlib") is None:
        _tell("scripts/bench: --charts needs matplotlib: pip install 'cluster-pool[charts]'")
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
    load = os.getloadavg()[0]
    try:
        rows = asyncio.run(_measure(settings, _loops(options.loop), wanted))
    except KeyboardInterrupt:
        return 130
    about = machine.description(server)
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(f"load before: {load:.2f}" + (" - others were at work" if load > BUSY else ""))
    print()
    print(markdown(rows))
    if options.json:
        options.json.write_text(as_json({**about, "load": f"{load:.2f}"}, rows))
    if options.charts:
        from tools.bench import chart

        chart.draw(rows, about, options.charts)
    return 1 if any(row.wrong for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
