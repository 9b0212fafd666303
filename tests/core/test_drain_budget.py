"""How the drain budget is shared, rule by rule."""

from math import inf
from typing import Any

import pytest

from cluster_pool.core.drain_budget import (
    CLOSABLE,
    DRAINING,
    HEADROOM,
    LATE,
    PAUSED,
    TTL,
    USED,
    Ask,
    DrainBudget,
    Grant,
)


class Drains:
    """A budget, and drainers that ask it at ``now``, spending their grants before."""

    def __init__(self, **cluster: Any) -> None:
        self.drain_budget = DrainBudget()
        self.cluster = cluster
        self.now = 1000.0
        self.rates: dict[str, float] = {}

    def ask(self, node: str, remaining: int = 1000, **what: Any) -> Grant:
        known = node in self.rates
        said = {"state": DRAINING, "rate": self.rates.get(node, 0.0), "known": known, **what}
        ask = Ask(node, remaining=remaining, total=remaining, **said)
        grant = self.drain_budget.lease(self.now, ask, **self.cluster)
        self.rates[node] = grant.rate
        return grant

    def round(self, *nodes: str, **what: Any) -> list[float]:
        """One renewal of each."""
        rates = [self.ask(node, **what).rate for node in nodes]
        self.now += 1.0
        return rates


# -- the budget ----------------------------------------------------------------------------


def test_the_budget_is_the_smallest_named_rate() -> None:
    """Drainers and the cluster's setting name one; a drainer without one counts as the headroom."""
    drains = Drains(headroom=1000.0, setting=600.0)
    assert drains.ask("a").budget == 600
    assert drains.ask("b", max_rate=500).budget == 500
    assert drains.ask("a").budget == 500
    drains.drain_budget.give_back("b")
    assert drains.ask("a").budget == 600
    drains.cluster = {"headroom": 500.0, "setting": 600.0}
    assert drains.ask("a").budget == USED * 500


def test_a_named_rate_may_be_above_the_headroom() -> None:
    """A named rate is trusted, as long as no other drainer relies on the headroom."""
    drains = Drains(headroom=100.0)
    assert drains.ask("a", max_rate=500).budget == 500
    assert drains.ask("b").budget == USED * 100


def test_a_paused_drainer_names_no_rate_for_others() -> None:
    """It closes nothing, so others need not keep its rate; its own grant still shows the rate."""
    drains = Drains(headroom=1000.0)
    assert drains.ask("a", state=PAUSED, max_rate=10).budget == 10
    assert drains.ask("b").budget == USED * 1000


def test_one_process_alone_closes_as_fast_as_it_can() -> None:
    """No drainer names a rate, and there is no headroom to keep."""
    drains = Drains()
    assert drains.ask("a").rate == CLOSABLE
    assert drains.ask("a", remaining=0).rate == 0


def test_without_acceptors_only_deadlines_close() -> None:
    """The budget is 0 then."""
    drains = Drains(headroom=0.0)
    assert drains.ask("a").rate == 0
    assert drains.ask("b", time_left=100.0).rate == 10


# -- shares --------------------------------------------------------------------------------


def test_shares_are_in_proportion_to_the_rest() -> None:
    """All drainers then end together."""
    drains = Drains(setting=100.0)
    for _ in range(2):
        drains.ask("a", remaining=3000)
        drains.ask("b", remaining=1000)
    assert drains.ask("a", remaining=3000).rate == pytest.approx(75, rel=0.01)
    assert drains.ask("b", remaining=1000).rate == pytest.approx(25, rel=0.01)


def test_a_deadline_is_served_first() -> None:
    """Everyone has its floor; the rest of the budget is shared by the numbers left to close."""
    drains = Drains(setting=100.0)
    for _ in range(3):
        urgent = drains.ask("a", remaining=500, time_left=10.0)
        other = drains.ask("b", remaining=500)
    assert urgent.needed == 50
    assert urgent.rate == pytest.approx(50 + 25)
    assert other.rate == pytest.approx(25)


def test_deadlines_above_the_budget_are_kept() -> None:
    """The sum of floors is granted, and drainers without a deadline wait."""
    drains = Drains(setting=100.0)
    for _ in range(3):
        first = drains.ask("a", remaining=1000, time_left=10.0)
        second = drains.ask("b", remaining=500, time_left=10.0)
        third = drains.ask("c", remaining=500)
    assert (first.budget, first.needed) == (100, 150)
    assert [first.rate, second.rate, third.rate] == pytest.approx([100, 50, 0])


def test_a_share_is_no_more_than_a_process_can_close() -> None:
    """Except that a floor is tried."""
    drains = Drains(setting=10_000.0)
    assert drains.ask("a", closable=300.0).rate == 300
    assert drains.ask("a", closable=300.0, time_left=2.0).rate == 500


def test_a_newcomer_takes_only_the_free_part() -> None:
    """The sum never rises above the budget; one renewal later all have their shares."""
    drains = Drains(setting=100.0)
    assert drains.round("a") == [100]
    assert drains.ask("b").rate == 0
    assert drains.ask("a").rate == 50
    assert drains.ask("b").rate == 50


def test_the_rest_is_estimated_between_renewals() -> None:
    """A drainer counts as spending its lease, so that S does not lag behind by a renewal."""
    drains = Drains(setting=100.0)
    drains.ask("a", remaining=1000, time_left=100.0)
    drains.now += 1.0
    assert drains.ask("b", remaining=0).needed == pytest.approx(900 / 99)


def test_a_smaller_budget_holds_at_the_next_renewal() -> None:
    """A drainer that renews first makes room for others that still hold the old one."""
    drains = Drains(setting=100.0)
    for _ in range(3):
        drains.round("a", "b")
    drains.cluster["setting"] = 40.0
    drains.round("a", "b")
    assert sum(drains.rates.values()) <= 40
    assert sum(drains.round("a", "b")) == pytest.approx(40, rel=0.1)


# -- drainers that have too little ---------------------------------------------------------


def test_a_drainer_that_starved_twice_takes_its_floor() -> None:
    """Others may hold everything and not renew: a deadline waits only briefly for them."""
    drains = Drains(setting=100.0)
    drains.ask("a", remaining=10_000)
    assert [drains.ask("b", time_left=50.0).rate for _ in range(4)] == [0, 0, 20, 0]


def test_a_drainer_with_hardly_any_time_takes_its_floor() -> None:
    """Less than five seconds leave no time to starve."""
    drains = Drains(setting=100.0)
    drains.ask("a", remaining=10_000)
    assert drains.ask("b", remaining=100, time_left=5.0).rate == 0
    assert drains.ask("c", remaining=100, time_left=4.9).rate == pytest.approx(100 / 4.9)


def test_a_deadline_that_has_passed_asks_for_everything_at_once() -> None:
    """The rate is still a finite number."""
    drains = Drains(setting=100.0)
    assert 1000 <= drains.ask("a", time_left=0.0).rate < inf


# -- paused, gone --------------------------------------------------------------------------


def test_a_paused_drainer_needs_nothing_and_holds_nothing() -> None:
    """Others have its share at their next renewal; later it returns to its true deadline."""
    drains = Drains(setting=100.0)
    for _ in range(2):
        drains.round("a", "b", time_left=100.0)
    paused = drains.ask("a", state=PAUSED, time_left=60.0)
    assert (paused.rate, paused.drainers) == (0, 2)
    assert drains.ask("b", time_left=60.0).rate == 100
    drains.ask("a", time_left=10.0)
    drains.ask("b", time_left=60.0)
    resumed = drains.ask("a", time_left=10.0)
    assert resumed.needed == pytest.approx(100 + 1000 / 60)
    assert resumed.rate == pytest.approx(100)


def test_a_drainer_that_ends_gives_its_share_back() -> None:
    """Done or cancelled; giving back twice is harmless."""
    drains = Drains(setting=100.0)
    drains.ask("a")
    drains.drain_budget.give_back("a")
    drains.drain_budget.give_back("a")
    assert drains.ask("b").rate == 100
    assert drains.ask("b").drainers == 1


def test_the_share_of_a_dead_drainer_is_free_within_four_renewals() -> None:
    """It lasts three, and no longer."""
    drains = Drains(setting=100.0)
    drains.ask("a")
    drains.now += TTL - 0.01
    assert drains.ask("b").rate == 0
    drains.now += 0.01
    assert drains.ask("b").rate == 100


@pytest.mark.parametrize(("drainers", "seconds"), [(1, 1.0), (50, 1.0), (100, 2.0), (400, 5.0)])
def test_many_drainers_renew_less_often(drainers: int, seconds: float) -> None:
    """Redis gets fifty renewals a second at most, up to 250 drainers."""
    drains = Drains(headroom=HEADROOM)
    for number in range(drainers):
        grant = drains.ask(str(number))
    assert (grant.drainers, grant.ttl) == (drainers, TTL * seconds)
    assert seconds - 0.001 <= grant.renew <= seconds + LATE + 0.001


# -- after the budget was lost -------------------------------------------------------------


def test_no_rate_grows_for_two_renewals_after_the_budget_was_lost() -> None:
    """Drainers that have not renewed yet still spend their old grants."""
    drains = Drains(setting=100.0)
    for _ in range(3):
        drains.round("a", "b")
    held = dict(drains.rates)
    drains.drain_budget = DrainBudget()
    for _ in range(2):
        drains.round("a", "b")
        assert all(drains.rates[node] <= held[node] for node in held)
    drains.round("a", "b")
    drains.drain_budget.give_back("b")
    assert drains.ask("a").rate == 100


def test_a_newcomer_waits_while_the_lost_budget_is_rebuilt() -> None:
    """It has no old grant to spend; but it starves no longer than its deadline allows."""
    drains = Drains(setting=100.0)
    drains.ask("a")
    drains.drain_budget = DrainBudget()
    drains.ask("a")
    assert drains.ask("b").rate == 0
    assert [drains.ask("c", time_left=50.0).rate for _ in range(3)] == [0, 0, 20]


def test_headroom_that_was_lost_with_the_budget_is_waited_for() -> None:
    """Acceptors advertise it again within a heartbeat; until then drains go on as before."""
    drains = Drains(headroom=1000.0)
    assert drains.round("a") == [700]
    drains.drain_budget, drains.cluster["headroom"] = DrainBudget(), 0.0
    assert drains.round("a") == [700]
    drains.cluster["headroom"] = 500.0
    assert drains.round("a") == [350]
    drains.cluster["headroom"] = 0.0
    assert drains.round("a") == [0]


def test_a_drainer_after_a_freeze_behaves_as_after_a_lost_budget() -> None:
    """Others have had its share; it keeps at most its present rate, and all shares converge."""
    drains = Drains(setting=100.0)
    for _ in range(3):
        drains.round("a", "b")
    for _ in range(5):
        drains.round("b")
    assert drains.ask("b").rate == 100
    drains.rates["a"] = 20.0
    for _ in range(4):
        drains.round("a", "b")
        assert sum(drains.rates.values()) <= 100
    assert drains.round("a", "b") == pytest.approx([50, 50], rel=0.1)


def test_a_drainer_that_waits_for_others_asks_again_after_their_renewals() -> None:
    """It need not wait for a second renewal of its own to get the share that others gave up."""
    drains = Drains(headroom=1000.0)
    drains.ask("a", max_rate=100)
    drains.now += 0.4
    cut = drains.ask("b", max_rate=100)
    assert cut.rate == 0
    assert cut.renew == pytest.approx(0.6 + LATE)
    drains.now += 0.6
    assert drains.ask("a", max_rate=100).rate == pytest.approx(50, rel=0.1)
    drains.now += LATE
    given = drains.ask("b", max_rate=100)
    assert given.rate == pytest.approx(50, rel=0.1)
    assert given.renew == 1.0
