"""The command line of the plan: tables for clusters of several sizes, as in docs/scaling.md."""

import argparse
from collections.abc import Iterator

from tools.harness.markdown import table
from tools.plan.costs import MEASURED
from tools.plan.demand import FULL, Demand, Load, demand, most_nodes

SIZES = (10, 100, 1000)
PER_NODE = 10_000
UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


def short(number: float) -> str:
    """Two digits, and what they count."""
    for size, unit in UNITS:
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.2g}" if number < 10 else f"{number:.0f}"


def rows(loads: list[Load]) -> Iterator[list[str]]:
    """The table of a plan, line by line."""
    yield ["", *[f"{load.nodes:,} nodes" for load in loads]]
    yield ["connections", *[short(load.connections) for load in loads]]
    yield [
        "namespaces; of one node",
        *[f"{short(load.namespaces)}; {short(load.held)}" for load in loads],
    ]
    planned: list[Demand] = [demand(load, MEASURED) for load in loads]
    lines: list[tuple[str, str]] = [
        ("joins and leaves per second", "joins"),
        ("heartbeats and probes per second", "heartbeats"),
        ("sends per second", "sends"),
        ("broadcasts per second", "broadcasts"),
        ("subscriptions", "subscriptions"),
        ("memory of Redis, bytes", "memory"),
        ("bytes per second to nodes", "output"),
        ("cores of Redis, home's slot", "home"),
        ("cores of Redis, all other slots", "spread"),
        (f"primaries that are enough, at {FULL:.0%}", "shards"),
    ]
    for what, name in lines:
        yield [what, *[short(getattr(one, name)) for one in planned]]
    yield [
        "subscriptions of a primary",
        *[short(one.subscriptions / one.shards) for one in planned],
    ]


def _parser() -> argparse.ArgumentParser:
    usual = Load(1, 1)
    parser = argparse.ArgumentParser(prog="scripts/plan", description=__doc__)
    add = parser.add_argument
    add("--nodes", type=int, action="append", metavar="N", help="may be repeated (10, 100, 1000)")
    add("--connections", type=int, metavar="N", help=f"of each node ({PER_NODE:,})")
    add("--members", type=int, metavar="N", help=f"of each namespace ({usual.members})")
    add("--sends", type=float, metavar="S", help="seconds between two sends to a connection (60)")
    add("--broadcasts", type=float, metavar="S", help="between two broadcasts to a namespace (60)")
    add("--stay", type=float, metavar="S", help=f"that a connection lasts ({usual.stay:g})")
    add("--drain", type=float, metavar="S", help=f"of a rolling restart ({usual.drain:g})")
    return parser


def main() -> None:
    """Print the table."""
    asked = _parser().parse_args()
    usual = Load(1, 1)
    loads = [
        Load(
            nodes,
            nodes * (asked.connections or PER_NODE),
            members=asked.members or usual.members,
            stay=asked.stay or usual.stay,
            sends=1 / (asked.sends or 60),
            broadcasts=1 / (asked.broadcasts or 60),
            drain=asked.drain or usual.drain,
        )
        for nodes in asked.nodes or SIZES
    ]
    print(table(list(rows(loads))))
    print(f"\nHome's slot fills {FULL:.0%} of its core at {most_nodes(MEASURED)} nodes.")


if __name__ == "__main__":
    main()
