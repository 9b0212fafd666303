"""The comparison of scripts/bench with peers: rows of made-up rounds, and refusals."""

import asyncio
import resource
import sys
from pathlib import Path

import pytest

from tools.bench import __main__, peers
from tools.bench.contenders import install
from tools.bench.contenders.line_up import line_up
from tools.bench.delivery import Rounds, Work
from tools.bench.peers import Entry
from tools.bench.table import markdown
from tools.harness.descriptors import SPARE

ONE = Work("broadcast", "broadcast", 30)
ID = Work("sends", "targeted", 15)


def entry(name: str, *micros: float, disordered: int = 0) -> Entry:
    """One that took so long in each round, where the floor took 10."""
    made = Entry(name, "uvloop")
    rounds = [{"A": 1.0, "B": one - 1.5, "Redis": 0.5} for one in micros]
    floors = [10.0] * len(rounds)
    made.results[ONE.what] = Rounds(rounds, floors, 1000 * len(rounds), disordered)
    made.versions = "it 1.2.3"
    return made


def absent() -> Entry:
    """One that could not be installed."""
    made = Entry("gone", "node")
    made.absent = "not installed: there is no npm here"
    return made


def test_a_row_has_the_median_the_ratio_and_the_parts() -> None:
    """And the versions, where they are wanted."""
    row = entry("they", 20.0, 40.0, 30.0).row(ONE, 1000, versions=True)
    table = markdown([row])
    for cell in ("broadcast: they", "30.0 µs", "20.0 to 40.0", "3.00 ×", "A 1.00", "it 1.2.3"):
        assert cell in table
    assert "it 1.2.3" not in markdown([entry("they", 20.0).row(ONE, 1000, versions=False)])


def test_what_is_not_installed_says_why_and_is_no_fault() -> None:
    """Its row is there all the same."""
    row = absent().row(ONE, 1000, versions=True)
    assert not row.wrong
    assert "not measured" in markdown([row])
    assert "not installed: there is no npm here" in markdown([row])


def test_out_of_order_is_a_fault_of_ours_alone() -> None:
    """Others may not promise an order: it is told."""
    row = entry("they", 20.0, disordered=10).row(ONE, 1000, versions=False)
    assert (row.wrong, "1.0% out of order" in row.note) == ("", True)
    assert entry(peers.OURS, 20.0, disordered=1).row(ONE, 1000, versions=False).wrong


def test_one_process_has_no_targeted_sends() -> None:
    """There is nobody to route them to."""
    alone = Entry("alone", "uvloop", alone=True)
    assert (alone.plays(ONE), alone.plays(ID)) == (True, False)


def test_slow_ones_get_less_to_do() -> None:
    """A quarter of it."""
    assert Entry("fast", "node").share(ONE).rounds == 30
    assert Entry("slow", "node", slow=True).share(ONE).rounds == 7


def test_every_contender_has_a_program() -> None:
    """In the folder, and a name of its own."""
    names = [contender.name for contender in line_up("asyncio")]
    assert len(names) == len(set(names)) == 4


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


def test_the_reason_is_one_line_without_addresses() -> None:
    """Of pip and of npm; and it does not break the table."""
    pip = (
        "WARNING: Retrying after connection broken by 'NewConnectionError()': /simple/it/\n"
        "ERROR: Could not find a version that satisfies the requirement it (from versions: none)\n"
        "ERROR: No matching distribution found for it\n"
    )
    assert install.reason(pip).startswith("ERROR: Could not find a version")
    npm = "npm error code E404\nnpm error 404 Not Found - GET https://example.org/it | no\n"
    assert install.reason(npm) == "npm error code E404"
    assert install.reason("error: GET https://example.org/it | no") == "error: GET / no"
    assert install.reason("\n") == "it said nothing"


def test_a_missing_program_is_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is made then."""
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(install.NotInstalledError, match="no node here"):
        asyncio.run(install.node_environment("it", ["it"]))
    assert not list(tmp_path.iterdir())
