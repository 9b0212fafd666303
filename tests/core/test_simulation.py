"""A hundred nodes of 10,000 connections: the planning code as a whole, in simulated time."""

from typing import Any, Final

import pytest

from cluster_pool.core.pacing import STEP
from tests.core.simulation import SECOND, Cluster

ABOVE = 1.10
"""The allowed closes in any second, over the larger of the budget and the deadlines' need."""


def check(cluster: Cluster, drainers: int, ignored: tuple[float, float] = (0.0, 0.0)) -> None:
    """No second above the limit, no second without a close, no deadline missed.

    ``ignored`` is a span in which seconds may be above the limit.
    """
    for end, closes, limit in cluster.windows():
        if not ignored[0] < end < ignored[1]:
            assert closes <= ABOVE * limit + drainers, f"{closes} in the second up to {end:.2f}"
        assert closes, f"none in the second up to {end:.2f}"
    check_deadlines(cluster)


def check_deadlines(cluster: Cluster) -> None:
    """Every close has begun when the reserve begins."""
    for drainer in cluster.gone:
        assert drainer.ended <= drainer.plan.deadline - drainer.plan.reserve + 2 * STEP


def test_a_rolling_wave_stays_within_the_budget() -> None:
    """Half of the nodes drain at once, at 70 % of what the others can take."""
    cluster = Cluster()
    cluster.drain(50)
    cluster.run()
    check(cluster, 50)
    assert cluster.use() > 1 / ABOVE
    assert cluster.now < ABOVE * 500_000 / 7000
    ends = [drainer.ended for drainer in cluster.gone]
    assert max(ends) - min(ends) < 0.1 * max(ends)


def test_late_joiners_get_their_shares() -> None:
    """Each takes its part from the earlier ones, and the sum stays the same."""
    cluster = Cluster(setting=2000.0)
    for _ in range(10):
        cluster.drain(1)
        cluster.run(3.0)
    cluster.run()
    check(cluster, 10)
    assert cluster.use() > 1 / ABOVE


def test_mixed_deadlines_are_kept() -> None:
    """Deadlines above the budget raise it, and drainers without one come last."""
    cluster = Cluster(setting=500.0)
    relaxed, urgent = cluster.drain(4), cluster.drain(4, grace=60.0)
    cluster.run(5.0)
    short = cluster.drain(4, grace=12.0)
    cluster.run()
    check(cluster, 12)
    assert cluster.use() > 1 / ABOVE
    order = [drainer.plan.node for drainer in cluster.gone]
    assert [set(order[at : at + 4]) for at in (0, 4, 8)] == [set(short), set(urgent), set(relaxed)]


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("grace", [None, 70.0])
def test_drains_go_on_without_redis(flushed: bool, grace: float | None) -> None:
    """For 10 s the last lease goes on, then a share that fits for all; closes never stop."""
    cluster = Cluster(headroom=70.0)
    cluster.drain(20, grace=grace)
    cluster.run(15.0)
    cluster.redis = False
    cluster.run(10.0)
    cluster.redis = True
    if flushed:
        cluster.flush()
    cluster.run()
    check(cluster, 20)
    assert cluster.use(until=17.0) > 1 / ABOVE
    assert cluster.use(since=25.0 + 6.0) > 1 / ABOVE


@pytest.mark.parametrize("asked", [True, False])
def test_a_deadline_without_redis_is_kept(asked: bool) -> None:
    """Whether or not the budget ever answered."""
    cluster = Cluster(headroom=70.0)
    cluster.redis = asked
    cluster.drain(20, grace=60.0)
    cluster.run(10.0)
    cluster.redis = False
    cluster.run()
    assert len(cluster.gone) == 20
    check_deadlines(cluster)
    assert max(closes for _, closes, _ in cluster.windows()) <= ABOVE * 0.7 * 70 * 80


def test_a_flush_of_the_budget_is_survived() -> None:
    """No rate grows while it is rebuilt, and no drain stops."""
    cluster = Cluster(nodes=5)
    cluster.drain(2)
    cluster.run(15.0)
    cluster.flush()
    cluster.run()
    check(cluster, 2)
    assert cluster.use(since=21.0) > 1 / ABOVE


def test_the_share_of_crashed_drainers_is_used() -> None:
    """The others use it within four seconds."""
    cluster = Cluster(setting=1000.0)
    names = cluster.drain(10)
    cluster.run(10.0)
    cluster.crash(names[:5])
    cluster.run(5.0)
    closes, limit = cluster.window(len(cluster.closes))
    assert closes > 0.95 * limit
    cluster.run()
    check(cluster, 10)
    assert cluster.use(since=14.0) > 1 / ABOVE


def test_the_budget_follows_when_acceptors_die() -> None:
    """At the next renewal."""
    cluster = Cluster()
    cluster.drain(20)
    cluster.run(10.0)
    cluster.crash(list(cluster.advertised)[:40])
    cluster.run()
    check(cluster, 20, ignored=(10.0, 12.0))
    assert cluster.use() > 1 / ABOVE


def test_the_smallest_named_rate_holds() -> None:
    """As long as the drainer that named it drains."""
    cluster = Cluster(setting=1500.0)
    cluster.drain(2)
    cluster.run(5.0)
    modest = cluster.drain(1, each=2000, max_rate=300.0)
    cluster.drain(1, max_rate=1000.0)
    cluster.run(3.0)
    while modest[0] in cluster.drainers:
        cluster.run(1.0)
        closes, _ = cluster.window(len(cluster.closes))
        assert closes <= ABOVE * 300 + 4 or modest[0] not in cluster.drainers
    cluster.run()
    check(cluster, 4, ignored=(5.0, 7.0))
    assert cluster.use() > 1 / ABOVE


def test_a_cluster_that_stops_closes_evenly() -> None:
    """No node is left to take the clients: all are closed evenly by the deadline."""
    cluster = Cluster()
    cluster.drain(100, grace=30.0)
    cluster.run()
    check(cluster, 100)
    assert cluster.now == pytest.approx(27.0, abs=0.1)
    seconds = [closes for _, closes, _ in cluster.windows()]
    assert max(seconds) < ABOVE * 1_000_000 / 27


def test_a_stop_without_redis_uses_half_of_the_budget() -> None:
    """The drainers never had a lease: half of the nodes drain, and use half of the budget."""
    cluster = Cluster(nodes=10)
    cluster.redis = False
    cluster.drain(5, max_rate=500.0)
    cluster.run(11.0)
    assert sum(cluster.closes) == pytest.approx(10 * 250, rel=0.05)
    assert max(cluster.closes) * SECOND < 2 * 250 + 5 * SECOND


def test_why_headroom_is_not_lowered_during_drains() -> None:
    """The budget would chase the reconnections that the drain causes, up and down."""
    cluster = Cluster()
    cluster.chasing = True
    cluster.drain(50)
    cluster.run(30.0)
    rates = [closes for end, closes, _ in cluster.windows() if 2 < end < 20]
    assert max(rates) > 3 * min(rates)
    assert cluster.use() < 0.75


STOP: Final[dict[str, Any]] = {
    "each": 30,
    "max_rate": 2.0,
    "grace": 25.0,
    "announce": 5.0,
    "last_grace": 5.0,
}
"""SIGTERM at a node that has 30 clients and no ``--grace``."""


def test_a_whole_cluster_that_stops_is_fast() -> None:
    """No node is left to keep the budget for: it ends before Docker kills (10 s)."""
    cluster = Cluster(nodes=3)
    cluster.drain(3, **STOP)
    cluster.run()
    assert cluster.now < 7.5
    assert sum(cluster.closes) == 90
    check_deadlines(cluster)


def test_an_explicit_grace_is_kept_when_a_whole_cluster_stops() -> None:
    """So is the announcement."""
    cluster = Cluster(nodes=3)
    cluster.drain(3, **{**STOP, "last_grace": None})
    cluster.run(4.9)
    assert not sum(cluster.closes)
    cluster.run()
    assert cluster.now > 20


@pytest.mark.parametrize("kind", ["accepts", "kept", "paused", "ordered"])
def test_a_stop_keeps_the_pace_for_a_node_that_may_take_newcomers(kind: str) -> None:
    """A node that accepts, a drained node, a paused drain; but not for a running drain."""
    cluster = Cluster(nodes=4)
    cluster.drain(3, **STOP)
    (other,) = cluster.advertised
    if kind == "kept":
        cluster.crash([other])
        cluster.kept.add(other)
    if kind in ("paused", "ordered"):
        cluster.drain(1, each=10_000)
        cluster.drainers[other].plan.paused = kind == "paused"
    cluster.run(12.0)
    left = sum(one.remaining for one in cluster.drainers.values() if one.plan.node != other)
    assert (left == 0) is (kind == "ordered")
    if kind != "ordered":  # it goes, and so does the reason to wait
        cluster.crash([other])
        cluster.run(3.2)
        assert all(drainer.plan.hastened for drainer in cluster.drainers.values())
        cluster.run(5.0)
        assert not cluster.drainers


@pytest.mark.parametrize("flushed", [False, True])
def test_a_missing_acceptor_during_an_outage_does_not_shorten_a_stop(flushed: bool) -> None:
    """Three nodes stop; the fourth takes newcomers, but cannot be seen for a while."""
    cluster = Cluster(nodes=4)
    cluster.drain(3, **STOP)
    cluster.run(2.0)
    cluster.redis = False
    cluster.run(5.0)
    cluster.redis = True
    if flushed:
        cluster.flush()
    cluster.run(12.0)
    assert not any(drainer.plan.hastened for drainer in cluster.drainers.values())


def test_a_node_that_starts_during_a_stop_restores_the_pace() -> None:
    """The whole cluster stops; then a node takes newcomers, and the pace is kept for it."""
    cluster = Cluster(nodes=3)
    cluster.drain(3, **STOP)
    cluster.run(4.5)
    assert all(drainer.plan.hastened for drainer in cluster.drainers.values())
    cluster.advertised["new"] = cluster.headroom
    cluster.run(1.1)  # a renewal
    assert cluster.drainers
    assert not any(drainer.plan.hastened for drainer in cluster.drainers.values())
    left = sum(drainer.remaining for drainer in cluster.drainers.values())
    cluster.run(2.0)
    assert sum(drainer.remaining for drainer in cluster.drainers.values()) > left / 3
    cluster.run()
    check_deadlines(cluster)
