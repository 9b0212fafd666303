"""What a drainer does with its lease, and while there is none."""

from math import inf
from typing import Any

import pytest

from cluster_pool.core.drain_budget import (
    ANNOUNCING,
    CLOSABLE,
    DRAINING,
    HEADROOM,
    PAUSED,
    USED,
    DrainBudget,
    Grant,
)
from cluster_pool.core.drain_plan import DrainPlan, announcement_of, reserve_of


def lease(rate: float, **known: Any) -> Grant:
    """A lease of three seconds, of one drainer among four nodes."""
    terms = {"budget": 100.0, "needed": 0.0, "renew": 1.0, "ttl": 3.0, "drainers": 1, "living": 4}
    terms["acceptors"] = 0 if known.get("budget") == 0 else 3
    return Grant(rate, **{**terms, **known})


def plan(**terms: Any) -> DrainPlan:
    """A drain that begins at 100."""
    return DrainPlan("a", 100.0, **terms)


@pytest.mark.parametrize(
    ("grace", "reserve"), [(1.0, 0.25), (8.0, 2.0), (25.0, 2.5), (60.0, 6.0), (600.0, 10.0)]
)
def test_the_reserve_is_a_tenth_of_the_grace(grace: float, reserve: float) -> None:
    """2 s at least and 10 s at most, but never more than a quarter of the grace."""
    assert reserve_of(grace) == pytest.approx(reserve)


@pytest.mark.parametrize(
    ("grace", "asked", "seconds"),
    [
        (None, None, 5.0),
        (60.0, None, 5.0),
        (10.0, None, 2.5),
        (10.0, 0.0, 0.0),
        (10.0, 8.0, 8.0),
        (None, 30.0, 30.0),
    ],
)
def test_the_announcement(grace: float | None, asked: float | None, seconds: float) -> None:
    """What was asked for, else 5 s, but no more than a quarter of the grace."""
    assert announcement_of(grace, asked) == seconds


# -- with a lease --------------------------------------------------------------------------


def test_a_lease_decides_while_redis_answers() -> None:
    """Also against a deadline that is far: the ledger knows of it."""
    drain = plan(deadline=200.0)
    drain.granted(lease(5.0), 101.0)
    assert drain.rate(102.9, 1000) == 5


def test_a_deadline_that_is_near_is_kept_whatever_was_granted() -> None:
    """Renewals are too far apart to ask for it."""
    drain = plan(deadline=106.0, reserve=2.0)
    drain.granted(lease(5.0), 100.5)
    assert drain.rate(101.0, 300) == 100
    assert drain.rate(104.0, 1) == inf
    assert drain.rate(110.0, 1) == inf


def test_it_asks_for_what_is_left() -> None:
    """Until the reserve begins; the rate is what it spends."""
    drain = plan(max_rate=50.0, deadline=140.0, reserve=4.0, total=900)
    first = drain.ask(106.0, 700)
    assert (first.node, first.state, first.remaining, first.total) == ("a", DRAINING, 700, 900)
    assert (first.time_left, first.max_rate, first.rate, first.known) == (30.0, 50.0, 0.0, False)
    drain.granted(lease(7.0), 106.0)
    second = drain.ask(107.0, 690)
    assert (second.rate, second.known, second.closable) == (7.0, True, CLOSABLE)


def test_connections_may_come_while_it_drains() -> None:
    """The total is never less than what is left."""
    assert plan(total=10).ask(100.0, 12).total == 12


def test_what_it_says_it_spends_is_finite() -> None:
    """Also when everything is due at once."""
    drain = plan(deadline=101.0)
    drain.granted(lease(7.0), 100.0)
    assert drain.ask(102.0, 10).rate == CLOSABLE
    assert drain.ask(102.0, 10).time_left == 0


def test_what_a_grant_tells() -> None:
    """Whether deadlines are above the budget, and whether nobody takes those who are closed."""
    drain = plan()
    assert not drain.over_budget()
    assert not drain.alone()
    drain.granted(lease(7.0, budget=100.0, needed=100.05), 100.0)
    assert not drain.over_budget()
    drain.granted(lease(7.0, budget=100.0, needed=120.0), 100.0)
    assert drain.over_budget()
    drain.granted(lease(7.0, budget=0.0, needed=120.0), 100.0)
    assert not drain.over_budget()
    assert drain.alone()


# -- without one ---------------------------------------------------------------------------


def test_redis_away_the_last_lease_goes_on() -> None:
    """Or what the deadline needs, if that is more."""
    drain = plan(deadline=150.0)
    drain.granted(lease(5.0), 110.0)
    assert drain.rate(112.5, 75) == 5
    assert drain.rate(112.5, 750) == 20


def test_after_the_lease_everyone_alive_might_drain() -> None:
    """The budget over living nodes and drainers, or what the deadline needs."""
    drain = plan(deadline=150.0)
    drain.granted(lease(90.0), 110.0)
    assert drain.rate(113.1, 0) == 100 / 5
    assert drain.rate(120.0, 900) == 30


def test_a_drain_that_never_had_a_lease() -> None:
    """A second's patience, then its own rate over the nodes that were seen last."""
    drain = plan(max_rate=80.0, nodes=4)
    assert drain.rate(100.9, 1000) == 0
    assert drain.rate(101.1, 1000) == 20
    assert plan(nodes=2).rate(101.1, 1000) == USED * HEADROOM / 2
    assert plan(max_rate=80.0, nodes=4, deadline=111.1).rate(101.1, 1000) == pytest.approx(100)


def test_a_deadline_that_is_near_does_not_wait_for_a_first_lease() -> None:
    """With a grace of a second there is nothing to be patient with."""
    assert plan(deadline=101.0, reserve=0.25).rate(100.25, 100) == pytest.approx(200)


def test_a_grant_tells_how_many_nodes_there_are() -> None:
    """So that the next drain without Redis knows."""
    drain = plan(nodes=9)
    drain.granted(lease(5.0, living=0), 100.0)
    assert drain.nodes == 1


# -- paused --------------------------------------------------------------------------------


def test_a_pause_closes_nobody_and_keeps_the_lease() -> None:
    """Whatever is granted or due."""
    drain = plan(deadline=110.0)
    drain.granted(lease(5.0), 100.0)
    drain.paused = True
    for now in (100.5, 102.5, 104.0, 109.0, 120.0):
        assert drain.rate(now, 1000) == 0
    assert drain.ask(104.0, 1000).state == PAUSED


def test_a_resumed_drain_has_its_true_deadline() -> None:
    """The pause is made up for, and not added."""
    drain = plan(deadline=150.0, paused=True)
    assert drain.ask(120.0, 1000).time_left == 30
    drain.paused = False
    assert drain.ask(130.0, 1000).time_left == 20
    assert drain.floor(130.0, 1000) == 50


def test_a_pause_ends_without_a_burst_while_redis_is_away() -> None:
    """What was granted last is a rate also if nobody was closing then."""
    drain = plan(max_rate=50.0, paused=True)
    drain.granted(DrainBudget().lease(100.0, drain.ask(100.0, 1000), living=4), 100.0)
    drain.paused = False
    assert drain.rate(104.0, 1000) == 10


# -- nobody is left ------------------------------------------------------------------------

LAST = {"deadline": 125.0, "reserve": 2.5, "last_grace": 5.0, "agree": 3.0}
NOBODY = lease(5.0, budget=0.0, deserted=True)
SOMEBODY = lease(5.0)


def told(drain: DrainPlan, *readings: tuple[float, Grant | None]) -> DrainPlan:
    """Tell a plan what was read when; None is no answer."""
    for at, grant in readings:
        if grant is None:
            drain.unanswered()
        else:
            drain.granted(grant, at)
    return drain


def test_two_readings_that_nobody_is_left_shorten_the_rest() -> None:
    """To five seconds from the first on, and half of them at least from the second."""
    drain = told(plan(**LAST), (101.0, NOBODY), (103.9, NOBODY))
    assert (drain.hastened, drain.deadline) == (False, 125.0)
    assert drain.until_agreed(103.9) == pytest.approx(0.1)
    told(drain, (104.0, NOBODY))
    assert (drain.hastened, drain.deadline, drain.reserve) == (True, 106.5, 0.625)
    assert drain.rate(104.0, 90) == pytest.approx(90 / 1.875)
    assert drain.until_agreed(104.0) == inf


@pytest.mark.parametrize("between", [SOMEBODY, None])
def test_both_readings_must_say_so_and_none_in_between_otherwise(between: Grant | None) -> None:
    """Redis away is not "nobody": what was read before it was away counts no more."""
    drain = told(plan(**LAST), (101.0, NOBODY), (102.0, between), (103.0, NOBODY), (105.9, NOBODY))
    assert not drain.hastened
    assert told(drain, (106.0, NOBODY)).hastened


def test_a_drain_that_ends_in_no_stop_is_never_shortened() -> None:
    """Nor one of a stop with a grace of its own: the plan has no last grace."""
    drain = told(plan(**{**LAST, "last_grace": None}), *((101.0 + at, NOBODY) for at in range(9)))
    assert (drain.hastened, drain.deadline) == (False, 125.0)
    assert drain.until_agreed(105.0) == inf


def test_a_paused_drain_is_not_shortened() -> None:
    """What was read during the pause counts no more when it goes on."""
    drain = told(plan(**LAST, paused=True), *((101.0 + at, NOBODY) for at in range(9)))
    drain.paused = False
    assert not told(drain, (110.0, NOBODY), (112.9, NOBODY)).hastened
    assert told(drain, (113.0, NOBODY)).hastened


def test_a_deadline_that_is_nearer_stays() -> None:
    """Nothing is ever lengthened."""
    drain = told(plan(**{**LAST, "deadline": 106.0}), (101.0, NOBODY), (104.0, NOBODY))
    assert (drain.hastened, drain.deadline, drain.reserve) == (True, 106.0, 2.5)
    assert drain.until_agreed(104.0) == inf
    assert told(drain, (105.0, SOMEBODY)).deadline == 106.0


def test_who_takes_newcomers_after_all_gives_the_time_back() -> None:
    """Somebody has started in the middle; a deadline that was asked for meanwhile is kept."""
    drain = told(plan(**LAST), (101.0, NOBODY), (104.0, NOBODY), (105.0, SOMEBODY))
    assert (drain.hastened, drain.deadline, drain.reserve) == (False, 125.0, 2.5)
    told(drain, (106.0, NOBODY), (109.0, NOBODY))
    drain.end_by(120.0, 1.0)
    assert (drain.hastened, drain.deadline) == (True, 111.5)
    told(drain, (110.0, None), (110.5, lease(5.0, budget=0.0)))
    assert drain.hastened, "who neither leaves nor takes newcomers may yet; it was decided"
    told(drain, (111.0, SOMEBODY))
    assert (drain.hastened, drain.deadline, drain.reserve) == (False, 120.0, 1.0)


def test_an_announcement_is_told_apart_from_closing() -> None:
    """A pause is one all the same."""
    assert plan(announcing=True).ask(100.0, 7).state == ANNOUNCING
    assert plan(announcing=True, paused=True).ask(100.0, 7).state == PAUSED
