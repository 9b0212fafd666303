"""The command line of the fuzzing."""

import argparse
import sys

from tools.fuzz.harness import Result, Target, run, shares
from tools.fuzz.targets import MOST_TURN_MS, NO_TURN, TARGETS
from tools.harness.markdown import table

HEAD = (
    *("target", "cases", "refused", "accepted", "longest case", "longest turn", "in case"),
    *("peak memory", "failed"),
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Feeds hostile input to everything that parses what others wrote, and prints "
        "what became of it. Exit status 1 when anything but the documented refusal came out.",
    )
    add = parser.add_argument
    add("--cases", type=int, default=10_000, help="over all targets, by their shares (10000)")
    add("--seed", type=int, default=1, help="the same seed makes the same cases (1)")
    add("--target", action="append", choices=TARGETS, help="this one alone; may be repeated")
    add("--case", type=int, help="this case of the target alone, as a failure names it")
    return parser


def _row(result: Result) -> list[str]:
    return [
        *(result.name, f"{result.cases:,}", f"{result.refused:,}", f"{result.accepted:,}"),
        *(f"{result.longest_case_us:,.0f}", f"{result.longest_turn_us:,.0f}", str(result.in_case)),
        *(f"{result.peak_mib:.0f}", str(result.failed)),
    ]


def main() -> int:
    """Status 0 when every case was accepted or refused as documented, and no turn was long."""
    options = _parser().parse_args()
    targets: list[Target] = [TARGETS[name]() for name in options.target or TARGETS]
    results = []
    for target, count in zip(targets, shares(targets, options.cases), strict=True):
        one = options.case
        numbers = range(count) if one is None else range(one, one + 1)
        print(f"{target.name}: {len(numbers):,} cases", file=sys.stderr, flush=True)
        results.append(run(target, options.seed, numbers))
    print(f"seed {options.seed}; CPU time of one thread, in µs; memory in MiB")
    print(table([HEAD, *map(_row, results)]))
    for result in results:
        for failure in result.failures:
            print(f"scripts/fuzz {failure}", file=sys.stderr)
    slow = [
        one.name
        for one in results
        if one.longest_turn_us > MOST_TURN_MS * 1000 and one.name not in NO_TURN
    ]
    if slow:
        print(f"the loop was blocked for more than {MOST_TURN_MS} ms: {slow}", file=sys.stderr)
    return 1 if slow or any(one.failed for one in results) else 0


if __name__ == "__main__":
    sys.exit(main())
