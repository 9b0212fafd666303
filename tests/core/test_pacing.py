"""How many closes are due, in which order, and how fast newcomers come."""

from collections import Counter
from math import inf
from random import Random

import pytest

from cluster_pool.core.pacing import STEP, ArrivalRate, Pacer, PeakRate, stratified


def test_a_pacer_spends_its_rate_and_no_burst() -> None:
    """Remainders are carried; a stall is caught up by 60 ms at most, and one."""
    pacer = Pacer(0.0)
    done = sum(pacer.due(step * 0.02, 100) for step in range(1, 501))
    assert 998 <= done <= 1000
    assert pacer.due(20.0, 100) <= 7


def test_a_slow_rate_still_closes() -> None:
    """A rate below one a second gives a close now and then."""
    pacer = Pacer(0.0)
    assert sum(pacer.due(step * 0.02, 0.5) for step in range(1, 501)) == 5


@pytest.mark.parametrize("rate", [0.7, 13, 33, 130, 1999])
def test_the_mean_is_the_rate(rate: float) -> None:
    """Although steps are late now and then, as in a busy loop."""
    random, pacer, now, done = Random(3), Pacer(0.0), 0.0, 0.0
    while now < 100:
        now += STEP + random.random() * 0.02
        done += pacer.due(now, rate)
    assert abs(done - rate * 100) <= max(1.0, rate * 0.1)


def test_a_rate_may_change_at_any_step() -> None:
    """Time saved at a high rate is not spent at a low one, and a rate of 0 gives nothing."""
    pacer = Pacer(0.0)
    assert pacer.due(0.06, 1000) == 60
    assert pacer.due(10.0, 0) == 0
    assert pacer.due(10.02, 10) <= 1
    assert pacer.due(10.04, inf) == inf


def test_pacers_that_begin_together_do_not_step_together() -> None:
    """A random start spreads the first closes of many slow drainers."""
    random = Random(1)
    pacers = [Pacer(0.0, random.random()) for _ in range(100)]
    firsts = [
        next(step for step in range(1, 60) if pacer.due(step * 0.02, 1.0)) for pacer in pacers
    ]
    assert max(Counter(firsts).values()) <= 10


def test_the_peak_rate_is_over_any_second() -> None:
    """Not only over the seconds of the calendar."""
    peak = PeakRate()
    for moment in (0.6, 0.7, 0.8, 1.5, 1.55, 3.0):
        peak.note(moment)
    assert peak.peak == 5


def test_newcomers_are_counted_over_the_last_seconds() -> None:
    """No rate is known at first; then it is the number of arrivals per second."""
    taken = ArrivalRate()
    assert taken.rate(500, 100.0) == 0
    assert taken.rate(600, 101.0) == 0
    assert taken.rate(800, 103.0) == 100
    assert taken.rate(10_000, 104.0) == 100
    assert taken.rate(800, 200.0) < 1


def test_no_group_is_used_up_before_the_others() -> None:
    """In every part of the order each group has its share, whatever its size."""
    groups = [[(name, at) for at in range(size)] for name, size in enumerate((1000, 100, 10))]
    order = stratified(groups, Random(7))
    assert sorted(order) == sorted(one for group in groups for one in group)
    for part in range(10):
        piece = Counter(name for name, _ in order[part * 111 : (part + 1) * 111])
        assert abs(piece[0] - 100) <= 3
        assert abs(piece[1] - 10) <= 2
        assert piece[2] <= 2
