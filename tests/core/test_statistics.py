"""Counters."""

from cluster_pool.core.statistics import Counters


def test_a_snapshot_has_every_counter_and_does_not_change() -> None:
    """It is taken once, by name."""
    counters = Counters()
    before = counters.as_dict()
    counters.delivered += 2
    assert (before["delivered"], counters.as_dict()["delivered"]) == (0, 2)
    assert before.keys() == counters.as_dict().keys()
