"""The servers of a shard, one after another."""

from cluster_pool.backplane.succession import PATIENCE, Succession
from cluster_pool.core.numbers import ServerChange


def test_another_server_has_taken_over_until_everything_was_compared() -> None:
    """Also when it goes before that; the first one succeeds none."""
    servers = Succession()
    assert servers.come_to("a", lost=False) is ServerChange.SAME
    assert servers.come_to("a", lost=False) is ServerChange.SAME
    digits = servers.digits
    assert servers.come_to("b", lost=False) is ServerChange.TAKEN_OVER
    assert servers.digits != digits
    assert servers.come_to("b", lost=False) is ServerChange.TAKEN_OVER
    assert servers.come_to("a", lost=True) is ServerChange.TAKEN_OVER
    servers.settle(100.0, 3.0)
    assert servers.come_to("a", lost=False) is ServerChange.SAME
    assert servers.digits == digits


def test_one_redis_is_named_by_no_digits() -> None:
    """It may still lose its state, which a later server does not bring back."""
    servers = Succession()
    assert servers.come_to("", lost=True) is ServerChange.LOST
    assert servers.come_to("", lost=False) is ServerChange.LOST
    servers.settle(100.0, 3.0)
    assert servers.come_to("", lost=False) is ServerChange.SAME
    assert servers.digits == ""


def test_the_lack_of_a_claim_says_nothing_while_claims_are_registered_again() -> None:
    """At first senders wait, then they say that they do not know."""
    servers = Succession()
    servers.come_to("", lost=False)
    servers.settle(100.0, 3.0)
    assert servers.unsure_until < 100.0
    servers.come_to("", lost=True)
    servers.settle(100.0, 3.0)
    assert (servers.patient_until, servers.unsure_until) == (100.0 + PATIENCE, 106.0)
    servers.come_to("", lost=False)
    servers.settle(101.0, 3.0)
    assert servers.unsure_until == 106.0
    assert servers.lost_within(5, 104.0)
    assert not servers.lost_within(5, 105.0)
    servers.come_to("", lost=True)
    assert servers.lost_within(5, 200.0)
    servers = Succession()
    assert not servers.lost_within(5, 0.0)
    servers.come_to("a", lost=False)
    servers.come_to("b", lost=False)
    servers.settle(100.0, 3.0)
    assert servers.patient_until == servers.unsure_until == 100.0 + PATIENCE
