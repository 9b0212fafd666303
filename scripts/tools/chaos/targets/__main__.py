"""The command line of the table of targets."""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

from tools.chaos.targets import freeze, restart, silence, slow
from tools.chaos.targets.rows import Row, markdown

ABOUT = """\
restart  Redis is killed and comes back empty, or from an old snapshot, under 10,000 members
silence  links that carry nothing, in both directions or in one; a Redis that is frozen
freeze   SIGSTOP of a node past its lease, while others take half of its ids over
slow     1,000 clients that never read: what they cost the others, and a SIGTERM

exit status: 0 every target was kept, 1 one was missed or something was wrong
"""

Measure = Callable[[], Awaitable[list[Row]]]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _measures(quick: bool) -> dict[str, Measure]:
    times = 1 if quick else 5
    downs = (0.3,) if quick else (0.3, 3.0, 30.0)
    members = 1_000 if quick else 10_000
    stuck = 100 if quick else 1_000
    return {
        "restart": lambda: restart.measure(members=members, downs=downs, tell=_tell),
        "silence": lambda: silence.measure(times=times, tell=_tell),
        "freeze": lambda: freeze.measure(times=1 if quick else 3, tell=_tell),
        "slow": lambda: slow.measure(stuck=stuck, turns=1 if quick else 3, pings=500, tell=_tell),
    }


def main() -> int:
    """Measure; 0 when every target was kept."""
    names = list(_measures(quick=True))
    parser = argparse.ArgumentParser(
        prog="scripts/chaos-targets",
        description="Measures what each fault costs, beside its target, and prints a table.",
        epilog=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", action="append", choices=names, help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="once, and smaller: a look")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write everything there")
    options = parser.parse_args()
    measures = _measures(options.quick)
    rows: list[Row] = []
    for name in options.only or names:
        rows += asyncio.run(_run(measures[name]))
    print(markdown(rows))
    if options.json:
        options.json.write_text(json.dumps([row.as_dict() for row in rows], indent=2) + "\n")
    return 0 if all(row.kept for row in rows) else 1


async def _run(measure: Measure) -> list[Row]:
    return await measure()


if __name__ == "__main__":
    sys.exit(main())
