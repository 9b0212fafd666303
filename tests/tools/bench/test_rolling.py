"""What the rolling restart of scripts/bench makes of times."""

import pytest

from tools.bench.rolling import Trial, Wave, _rows, mean_rate, peak, per_second


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
    report = {"codes": {"1012": 99, "1006": 1}, "refusals": {}, "heard": {}}
    times = [3.0 + at / 10 for at in range(100)]

    def trial() -> Trial:
        waves = [Wave(0.0, 20.0, times, times)]
        return Trial(waves, [0, 0], report, (0, 500), 1.0)

    rows = {row.what.partition(",")[0]: row for row in _rows(trial(), trial(), 100, 10.0)}
    assert rows["closes in any second"].median == 10
    assert rows["mean rate ÷ budget over 10 s"].median == pytest.approx(1, abs=0.1)
    assert rows["connections cut"].median == 1
    assert "at once 1" in rows["connections cut"].note
    assert len(rows["reconnects in any second"].series) == 2
    broken = trial()
    broken.statuses = [0, 1]
    assert _rows(broken, trial(), 100, 10.0)[0].wrong
