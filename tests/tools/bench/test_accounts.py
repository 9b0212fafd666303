"""The scenario of accounts from its processes to its rows, as small as it can be."""

import pytest

from tests.support import async_test
from tools.bench import accounts
from tools.bench.__main__ import _parser, _settings
from tools.bench.accounts import rows


def test_the_difference_of_both_is_of_each_round() -> None:
    """CPU of node and Redis together."""
    settings = _settings(_parser().parse_args([]))
    kept = [{"node": 10.0, "Redis": 1.0}, {"node": 12.0, "Redis": 1.2}]
    plain = [{"node": 10.0, "Redis": 0.0}, {"node": 11.0, "Redis": 1.0}]
    first, second, more = rows(settings, kept, plain, "WRONG")
    assert first.what.endswith(
        "19,500 connections in rooms of 50 at one broadcast a second, with a history"
    )
    assert (first.samples, second.samples) == ([11.0, 13.2], [10.0, 12.0])
    assert more.samples == pytest.approx([10.0, 10.0])
    assert first.wrong == second.wrong == "WRONG"


@pytest.mark.real
@async_test
async def test_both_nodes_deliver_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """To full rooms and to one that is not."""
    monkeypatch.setattr(accounts, "TURN", 2)
    arguments = ["--quick", "--accounts", "120", "--rounds", "1"]
    made = await accounts.measure(_settings(_parser().parse_args(arguments)), "", lambda text: None)
    assert not any(row.wrong for row in made)
    assert {row.unit for row in made} == {"µs", "%"}
    assert all(len(row.samples) == 1 for row in made)
