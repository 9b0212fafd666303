"""A drainer's plan with its lease, and without one."""

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
    """The requested time, else 5 s, but no more than a quarter of the grace."""
    assert announcement_of(grace, asked) == seconds


# -- with a lease --------------------------------------------------------------------------


def test_a_lease_decides_while_redis_answers() -> None:
    """Also against a distant deadline: the budget knows it."""
    drain = plan(deadline=200.0)
    drain.granted(lease(5.0), 101.0)
    assert drain.rate(102.9, 1000) == 5


def test_a_near_deadline_is_kept_whatever_was_granted() -> None:
    """Renewals are too far apart to ask for it."""
    drain = plan(deadline=106.0, reserve=2.0)
    drain.granted(lease(5.0), 100.5)
    assert drain.rate(101.0, 300) == 100
    assert drain.rate(104.0, 1) == inf
    assert drain.rate(110.0, 1) == inf


def test_the_ask_has_the_rest_to_close_and_the_rate() -> None:
    """Its deadline is the begin of the reserve; its rate is the present one."""
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


def test_the_rate_in_an_ask_is_finite() -> None:
    """Also when everything is due at once."""
    drain = plan(deadline=101.0)
    drain.granted(lease(7.0), 100.0)
    assert drain.ask(102.0, 10).rate == CLOSABLE
    assert drain.ask(102.0, 10).time_left == 0


def test_a_grant_tells_of_excess_and_of_missing_acceptors() -> None:
    """Whether deadlines exceed the budget, and whether no node takes the closed clients."""
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


def test_without_redis_the_last_lease_goes_on() -> None:
    """At a higher rate if the deadline needs it."""
    drain = plan(deadline=150.0)
    drain.granted(lease(5.0), 110.0)
    assert drain.rate(112.5, 75) == 5
    assert drain.rate(112.5, 750) == 20


def test_after_its_lease_a_drainer_assumes_that_all_nodes_drain() -> None:
    """It takes the budget divided by living nodes and drainers, or the rate its deadline needs."""
    drain = plan(deadline=150.0)
    drain.granted(lease(90.0), 110.0)
    assert drain.rate(113.1, 0) == 100 / 5
    assert drain.rate(120.0, 900) == 30


def test_a_drain_that_never_had_a_lease_waits_a_second() -> None:
    """Then it takes its own rate divided by the nodes that were seen last."""
    drain = plan(max_rate=80.0, nodes=4)
    assert drain.rate(100.9, 1000) == 0
    assert drain.rate(101.1, 1000) == 20
    assert plan(nodes=2).rate(101.1, 1000) == USED * HEADROOM / 2
    assert plan(max_rate=80.0, nodes=4, deadline=111.1).rate(101.1, 1000) == pytest.approx(100)


def test_a_near_deadline_does_not_wait_for_a_first_lease() -> None:
    """A grace of a second leaves no time to wait."""
    assert plan(deadline=101.0, reserve=0.25).rate(100.25, 100) == pytest.approx(200)


def test_a_grant_tells_the_number_of_nodes() -> None:
    """The next drain without Redis needs it."""
    drain = plan(nodes=9)
    drain.granted(lease(5.0, living=0), 100.0)
    assert drain.nodes == 1


# -- paused --------------------------------------------------------------------------------


def test_a_paused_drain_closes_nothing_and_keeps_the_lease() -> None:
    """With any grant and deadline."""
    drain = plan(deadline=110.0)
    drain.granted(lease(5.0), 100.0)
    drain.paused = True
    for now in (100.5, 102.5, 104.0, 109.0, 120.0):
        assert drain.rate(now, 1000) == 0
    assert drain.ask(104.0, 1000).state == PAUSED


def test_a_resumed_drain_keeps_its_deadline() -> None:
    """The pause is caught up with, and does not move the deadline."""
    drain = plan(deadline=150.0, paused=True)
    assert drain.ask(120.0, 1000).time_left == 30
    drain.paused = False
    assert drain.ask(130.0, 1000).time_left == 20
    assert drain.floor(130.0, 1000) == 50


def test_a_pause_ends_without_a_burst_while_redis_is_away() -> None:
    """The last grant is a rate although nothing was closed then."""
    drain = plan(max_rate=50.0, paused=True)
    drain.granted(DrainBudget().lease(100.0, drain.ask(100.0, 1000), living=4), 100.0)
    drain.paused = False
    assert drain.rate(104.0, 1000) == 10


# -- no acceptor is left -------------------------------------------------------------------

LAST = {"deadline": 125.0, "reserve": 2.5, "last_grace": 5.0, "agree": 3.0}
DESERTED = lease(5.0, budget=0.0, deserted=True)
ACCEPTING = lease(5.0)


def told(drain: DrainPlan, *readings: tuple[float, Grant | None]) -> DrainPlan:
    """Give readings of the acceptors to a plan, each with its time; None is no answer."""
    for at, grant in readings:
        if grant is None:
            drain.unanswered()
        else:
            drain.granted(grant, at)
    return drain


def test_two_readings_without_acceptors_shorten_the_rest() -> None:
    """To five seconds from the first reading, and at least half of them from the second."""
    drain = told(plan(**LAST), (101.0, DESERTED), (103.9, DESERTED))
    assert (drain.hastened, drain.deadline) == (False, 125.0)
    assert drain.until_agreed(103.9) == pytest.approx(0.1)
    told(drain, (104.0, DESERTED))
    assert (drain.hastened, drain.deadline, drain.reserve) == (True, 106.5, 0.625)
    assert drain.rate(104.0, 90) == pytest.approx(90 / 1.875)
    assert drain.until_agreed(104.0) == inf


@pytest.mark.parametrize("between", [ACCEPTING, None])
def test_both_readings_must_show_no_acceptor_and_none_between_otherwise(
    between: Grant | None,
) -> None:
    """A reading without Redis shows nothing, and cancels the ones before it."""
    drain = told(
        plan(**LAST), (101.0, DESERTED), (102.0, between), (103.0, DESERTED), (105.9, DESERTED)
    )
    assert not drain.hastened
    assert told(drain, (106.0, DESERTED)).hastened


def test_a_drain_without_a_stop_is_never_shortened() -> None:
    """Nor one of a stop with a grace of its own: the plan has no last grace."""
    drain = told(plan(**{**LAST, "last_grace": None}), *((101.0 + at, DESERTED) for at in range(9)))
    assert (drain.hastened, drain.deadline) == (False, 125.0)
    assert drain.until_agreed(105.0) == inf


def test_a_paused_drain_is_not_shortened() -> None:
    """Readings during the pause do not count when it goes on."""
    drain = told(plan(**LAST, paused=True), *((101.0 + at, DESERTED) for at in range(9)))
    drain.paused = False
    assert not told(drain, (110.0, DESERTED), (112.9, DESERTED)).hastened
    assert told(drain, (113.0, DESERTED)).hastened


def test_a_nearer_deadline_stays() -> None:
    """No drain is ever lengthened by a reading."""
    drain = told(plan(**{**LAST, "deadline": 106.0}), (101.0, DESERTED), (104.0, DESERTED))
    assert (drain.hastened, drain.deadline, drain.reserve) == (True, 106.0, 2.5)
    assert drain.until_agreed(104.0) == inf
    assert told(drain, (105.0, ACCEPTING)).deadline == 106.0


def test_a_new_acceptor_restores_the_deadline() -> None:
    """A node has started meanwhile; a deadline that was asked for since is kept."""
    drain = told(plan(**LAST), (101.0, DESERTED), (104.0, DESERTED), (105.0, ACCEPTING))
    assert (drain.hastened, drain.deadline, drain.reserve) == (False, 125.0, 2.5)
    told(drain, (106.0, DESERTED), (109.0, DESERTED))
    drain.end_by(120.0, 1.0)
    assert (drain.hastened, drain.deadline) == (True, 111.5)
    told(drain, (110.0, None), (110.5, lease(5.0, budget=0.0)))
    assert drain.hastened, "who neither leaves nor takes newcomers may yet; it was decided"
    told(drain, (111.0, ACCEPTING))
    assert (drain.hastened, drain.deadline, drain.reserve) == (False, 120.0, 1.0)


def test_an_announcement_has_a_state_of_its_own() -> None:
    """A pause during it is shown as a pause."""
    assert plan(announcing=True).ask(100.0, 7).state == ANNOUNCING
    assert plan(announcing=True, paused=True).ask(100.0, 7).state == PAUSED
