"""The figures of the rolling restart of scripts/bench, from times."""

import pytest

from tools.bench.rolling import Trial, Wave, mean_rate, peak, per_second, rows


def test_the_peak_is_of_any_second() -> None:
    """Both ends of the second do not count; nothing is nothing."""
    assert peak([]) == 0
    assert peak([0.0, 0.5, 0.99, 1.0, 1.4]) == 4
    assert peak([3.0, 1.0, 2.0]) == 1


def test_the_mean_is_of_the_middle() -> None:
    """Begin and end are left out where there is enough between them."""
    steady = [at / 50 for at in range(15 * 50)]
    assert mean_rate(steady) == pytest.approx(50, rel=0.01)
    assert mean_rate([0.0] * 500 + steady) == pytest.approx(50, rel=0.01)
    assert mean_rate([]) == 0
    assert mean_rate([0.0, 0.25, 0.5]) == pytest.approx(4)


def test_times_become_points_for_a_chart() -> None:
    """Each point counts the second around it."""
    points = per_second([10.0, 10.2, 14.0], 10.0, 16.0)
    assert points[0] == (0.0, 2.0)
    assert points[16] == (4.0, 1.0)
    assert points[-1] == (6.0, 0.0)


def test_a_restart_becomes_rows_and_curves() -> None:
    """Each figure of ours, beside the restart without a pace where that is told."""
    report = {"codes": {"1012": 99, "1006": 1}, "refused": {}, "heard": {}}
    times = [3.0 + at / 10 for at in range(100)]
    trial = Trial([Wave(0.0, 20.0, times, times)], report, 2, 1.0)
    found = {row.what.partition(",")[0]: row for row in rows(trial, trial, 10.0)}
    assert found["closes in any second"].median == 10
    assert found["mean rate ÷ budget over 10 s"].median == pytest.approx(1, abs=0.1)
    assert found["connections cut"].median == 1
    assert "at once 1" in found["connections cut"].note
    assert found["messages lost of those answered DELIVERED"].median == 2
    assert len(found["reconnects in any second"].series) == 2
