"""Answers of operations."""

from cluster_pool.core.results import SendResult


def test_a_send_is_true_when_it_was_delivered_or_routed() -> None:
    """``if await pool.send(…)`` then works as it reads."""
    assert [result for result in SendResult if result] == [SendResult.DELIVERED, SendResult.ROUTED]
