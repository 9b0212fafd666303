"""Ids that clients fight for, and the limit on log lines about them."""

from cluster_pool.core.quiet import LINES, PERIOD, Quiet
from cluster_pool.core.takeovers import (
    FIRST_DELAY,
    LONGEST_DELAY,
    SHARE,
    TOLERATED,
    WINDOW,
    Takeovers,
)

AT_LEISURE = 1000.0


def fought_for(times: int) -> Takeovers:
    """An id that was taken over so many times in a moment."""
    takeovers = Takeovers()
    for _ in range(times):
        takeovers.note("n", "a", 0.0)
    return takeovers


def test_a_client_that_comes_back_a_few_times_is_not_slowed_down() -> None:
    """Nor is any other id, nor the same one after the fight."""
    takeovers = fought_for(TOLERATED)
    assert takeovers.delay("n", "a", 0.0, AT_LEISURE) == 0
    takeovers.note("n", "a", 0.0)
    assert takeovers.delay("n", "a", 0.0, AT_LEISURE) == FIRST_DELAY
    assert takeovers.delay("n", "b", 0.0, AT_LEISURE) == 0
    assert takeovers.delay("n", "a", WINDOW, AT_LEISURE) == 0


def test_the_delay_doubles_up_to_a_bound() -> None:
    """With each further takeover, however many there are."""
    delays = [fought_for(TOLERATED + n).delay("n", "a", 0, AT_LEISURE) for n in range(1, 6)]
    assert delays == [FIRST_DELAY * 2**n for n in range(5)]
    assert fought_for(5000).delay("n", "a", 0, AT_LEISURE) == LONGEST_DELAY


def test_a_claim_keeps_time_to_be_answered() -> None:
    """It waits no more than a share of its caller's time; not at all after the deadline."""
    takeovers = fought_for(50)
    assert takeovers.delay("n", "a", 0.0, 1.0) == SHARE
    assert takeovers.delay("n", "a", 1.0, 1.0) == 0
    assert takeovers.delay("n", "a", 2.0, 1.0) == 0


def test_a_fight_slows_down_to_few_takeovers() -> None:
    """Clients that come back at once take the id over some 20 times in the first ten seconds."""
    takeovers, now, count = Takeovers(), 0.0, 0
    while now < 6 * WINDOW:
        takeovers.note("n", "a", now)
        count += 1
        now += 0.003 + takeovers.delay("n", "a", now, now + 2.0)
    assert 40 < count < 100


def test_a_line_is_due_once_per_period_and_subject() -> None:
    """It gives the number it stands for; lines left out are included in the next."""
    quiet = Quiet()
    assert quiet.due("a", 0.0) == 1
    assert [quiet.due("a", 1.0) for _ in range(300)] == [0] * 300
    assert quiet.due("b", 2.0) == 1
    assert quiet.due("a", PERIOD) == 301
    assert quiet.due("a", 2 * PERIOD) == 1


def test_lines_about_many_subjects_are_bounded_too() -> None:
    """A storm over ever new subjects says ``LINES`` in a period, and is not remembered for ever."""
    quiet = Quiet()
    assert sum(quiet.due(number, 1.0) > 0 for number in range(5000)) == LINES
    assert sum(quiet.due(number, PERIOD + 1) > 0 for number in range(5000)) == LINES
    assert len(quiet._subjects) <= 1024


def test_takeovers_that_repeat_are_noticed() -> None:
    """More than five of one id within ten seconds; others and older ones do not count."""
    takeovers = Takeovers()
    assert not any(takeovers.note("n", "a", moment) for moment in range(5))
    assert takeovers.note("n", "a", 5)
    assert not takeovers.note("n", "b", 5)
    assert not takeovers.note("n", "a", 30)
