"""Rows that show the progress of drains."""

import pytest

from cluster_pool.cli.progress import PATIENCE, Bars, Row, _bars
from cluster_pool.core.results import DrainProgress, Node, NodeState


def node_in(state: NodeState, connections: int = 0) -> Node:
    """A node as the registry lists it."""
    return Node("a", "i", state, connections, 9.0)


def test_row_waits_until_a_confirmed_drain_is_seen() -> None:
    """A node that has agreed may still be listed as active for a moment."""
    row = Row("a")
    row.update(node_in(NodeState.ACTIVE, 9), None)
    assert row.state == "announcing"
    row.update(node_in(NodeState.ANNOUNCING, 9), None)
    assert (row.state, row.total, row.remaining) == ("announcing", 9, 9)
    row.update(node_in(NodeState.DRAINING, 9), DrainProgress("a", "draining", 5, 9, 2.0, None))
    assert (row.state, row.remaining, row.rate) == ("draining", 5, 2.0)
    row.update(node_in(NodeState.ACTIVE, 4), None)
    assert row.state == "active"
    row.update(None, None)
    assert (row.state, row.remaining) == ("stopped", 0)


def test_row_of_an_unseen_drain_becomes_active() -> None:
    """A drain that never appeared was cancelled at once."""
    row = Row("a")
    for _ in range(PATIENCE + 1):
        row.update(node_in(NodeState.ACTIVE), None)
    assert row.state == "active"


@pytest.mark.parametrize("state", [NodeState.DRAINED, NodeState.DRAINING])
def test_drained_row_has_nothing_remaining(state: NodeState) -> None:
    """Drained is the end; draining without a lease on the budget means that the last closes run."""
    row = Row("a")
    row.update(node_in(state, 3), None)
    assert row.remaining == (0 if state is NodeState.DRAINED else 3)


def test_long_node_name_is_shortened_in_the_middle(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both of its ends and the figures are shown; markup in it is shown as text."""
    monkeypatch.setenv("COLUMNS", "80")
    with _bars() as progress:
        Bars(progress).show([Row("web-" + "x" * 200 + "[/]-7", "draining", 100, 40, 12.0)])
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("web-xxx")
    assert "[/]-7 " in line
    assert line.rstrip().endswith("60/100 12/s draining")
