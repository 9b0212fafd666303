"""Answers of operations."""

from cluster_pool.core.results import Delivery, SendResult

GOOD = [SendResult.DELIVERED, SendResult.ROUTED, SendResult.RECEIVED, SendResult.PARKED]


def test_a_send_is_true_when_it_was_delivered_routed_received_or_parked() -> None:
    """``if await pool.send(…)`` then works as it reads."""
    assert [result for result in SendResult if result] == GOOD


def test_a_delivery_counts_connections_and_is_true_when_one_was_reached() -> None:
    """Each result is in exactly one of its numbers; without connections it is false."""
    every = Delivery.of(SendResult)
    assert every == Delivery(
        delivered=1, routed=2, refused=1, undelivered=2, timed_out=1, received=1
    )
    assert [result for result in SendResult if Delivery.of([result])] == GOOD
    assert Delivery.of([SendResult.ABSENT, SendResult.ROUTED])
    assert Delivery.of([]) == Delivery()
    assert not Delivery()
