"""The plan: what follows from measured costs, and that the page has what the program prints."""

import subprocess
import sys
from dataclasses import replace

import pytest

from tests.docs.pages import ROOT
from tools.plan.__main__ import short
from tools.plan.costs import MEASURED
from tools.plan.demand import FULL, Load, demand, most_nodes

LOAD = Load(100, 1_000_000)


def test_the_page_has_the_table_that_the_program_prints() -> None:
    """A change of the costs or of the program shows on the page."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tools.plan"],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(ROOT / "scripts")},
    )
    page = (ROOT / "docs" / "scaling.md").read_text()
    for part in done.stdout.strip().split("\n\n"):
        assert part in page


def test_namespaces_are_spread_over_nodes() -> None:
    """One member is on one node; very many members are on all; subscriptions follow."""
    assert replace(LOAD, members=1).spread == pytest.approx(1)
    assert replace(LOAD, members=100_000).spread == pytest.approx(100)
    one = demand(replace(LOAD, members=1), MEASURED)
    assert one.subscriptions == pytest.approx(2 * LOAD.connections)


def test_home_grows_faster_than_the_nodes_and_all_else_with_the_load() -> None:
    """Ten times as many nodes with ten times as many connections."""
    small, large = (demand(Load(at, at * 10_000), MEASURED) for at in (1000, 10_000))
    assert large.home / small.home > 15
    assert 5 < large.spread / small.spread < 100


def test_the_most_nodes_fill_their_part_of_the_core_of_home() -> None:
    """One node more is too many."""
    most = most_nodes(MEASURED)
    assert demand(Load(most, 1), MEASURED).home <= FULL
    assert demand(Load(most + 1, 1), MEASURED).home > FULL


def test_there_are_enough_primaries() -> None:
    """None is fuller than planned, and there is one at least."""
    planned = demand(Load(1000, 10_000_000), MEASURED)
    probes = 1000 * MEASURED.probe / 1e6
    assert planned.spread / planned.shards + probes <= FULL
    assert demand(Load(100_000, 10_000_000), replace(MEASURED, probe=100)).shards == 1_000
    assert demand(Load(1, 1), MEASURED).shards == 1


def test_numbers_are_short() -> None:
    """Three digits and a unit."""
    assert [short(one) for one in (0.123, 12.3, 1234, 12_345_678, 2e9)] == [
        *("0.12", "12", "1.23 k", "12.3 M", "2 G"),
    ]
