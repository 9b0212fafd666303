"""How many newcomers a node says that it can take."""

import pytest

from cluster_pool import NodeState
from cluster_pool.cluster import capacity
from cluster_pool.cluster.capacity import Capacity
from cluster_pool.cluster.node_life import NodeLife
from cluster_pool.core.statistics import Counters


def test_arrivals_are_subtracted_from_the_headroom(monkeypatch: pytest.MonkeyPatch) -> None:
    """As counted over the last seconds; never less than nothing."""
    now = 100.0
    monkeypatch.setattr(capacity, "boottime", lambda: now)
    life, counters = NodeLife(lambda state: None), Counters()
    life.become(NodeState.ACTIVE)
    one = Capacity(200.0, life, counters)
    assert one.headroom() == 200
    for seconds, arrived, left in ((2, 100, 150.0), (4, 200, 150.0), (2, 4000, 0.0)):
        now += seconds
        counters.accepted += arrived
        assert one.headroom() == left
        assert one.free() == left / 200


def test_a_node_that_takes_no_newcomers_has_no_headroom() -> None:
    """A node that is starting has headroom, but is not free yet."""
    life = NodeLife(lambda state: None)
    one = Capacity(200.0, life, Counters())
    for state in NodeState:
        life.become(state)
        takes = state in (NodeState.STARTING, NodeState.ACTIVE)
        assert one.headroom() == (200 if takes else None)
        assert one.free() == (1.0 if state is NodeState.ACTIVE else None)
