"""The comparison of scripts/bench with peers: rows of made-up rounds, and refusals."""

import resource
import sys
from dataclasses import replace

import pytest

from tools.bench import __main__
from tools.bench.delivery import Rounds, Work
from tools.bench.peers import Entry
from tools.bench.table import markdown
from tools.contenders.line_up import OURS, Contender
from tools.harness.linux import SPARE

ONE = Work("broadcast", "broadcast", 30)
ID = Work("sends", "targeted", 15)


THEY = Contender("they", "they", loop="uvloop", note="it 1.2.3")


def entry(*micros: float, of: Contender = THEY, disordered: int = 0) -> Entry:
    """One that took so long in each round, where the floor took 10."""
    made = Entry(of)
    rounds = [{"A": 1.0, "B": one - 1.5, "Redis": 0.5} for one in micros]
    floors = [10.0] * len(rounds)
    made.results[ONE.what] = Rounds(rounds, floors, 1000 * len(rounds), disordered)
    return made


def test_a_row_has_the_median_the_ratio_and_the_parts() -> None:
    """It also names everything else that a reader must know."""
    table = markdown([entry(20.0, 40.0, 30.0).row(ONE, 1000, versions=True)])
    for cell in ("broadcast: they", "30.0 µs", "20.0 to 40.0", "3.00 ×", "A 1.00", "it 1.2.3"):
        assert cell in table


def test_a_contender_that_is_not_installed_says_why() -> None:
    """Its row is there, and that is no fault."""
    row = Entry(THEY, absent="not installed: without they").row(ONE, 1000, versions=True)
    assert not row.wrong
    assert "not measured" in markdown([row])
    assert "not installed: without they" in markdown([row])


def test_out_of_order_is_a_fault_of_ours_alone() -> None:
    """Others may not promise an order: it is told."""
    row = entry(20.0, disordered=10).row(ONE, 1000, versions=False)
    assert (row.wrong, "1.0% out of order" in row.note) == ("", True)
    assert entry(20.0, of=OURS, disordered=1).row(ONE, 1000, versions=False).wrong


def test_one_process_has_no_targeted_sends() -> None:
    """It has no other process to route them to."""
    alone = Entry(replace(THEY, alone=True))
    assert (alone.plays(ONE), alone.plays(ID)) == (True, False)


def test_slow_ones_get_less_to_do() -> None:
    """A quarter of it."""
    assert Entry(THEY).share(ONE).rounds == 30
    assert Entry(replace(THEY, slow=True)).share(ONE).rounds == 7


def test_more_connections_than_descriptors_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, and what to ask for instead."""
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 1024))
    monkeypatch.setattr(sys, "argv", ["bench", "--only", "peers", "--connections", "1000"])
    assert __main__.main() == 2
    said = capsys.readouterr()
    assert "peers: 1000 connections" in said.err
    assert f"ask for at most {1024 - SPARE}" in said.err
    assert not said.out
