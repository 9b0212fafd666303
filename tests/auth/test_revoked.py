"""The revoked tokens that a node knows."""

from cluster_pool import Identity
from cluster_pool.auth.revoked import PRUNED_AFTER, RevokedTokens


def test_a_token_is_revoked_until_its_time() -> None:
    """Not afterwards; a guest, and an identity without a token, never."""
    tokens = RevokedTokens()
    assert tokens.add("t", 20.0, now=10.0)
    assert tokens.names(Identity(token_id="t"), now=19.9)
    assert not tokens.names(Identity(token_id="t"), now=20.0)
    assert not tokens.names(Identity(token_id="u"), now=11.0)
    assert not tokens.names(Identity(), now=11.0)
    assert not tokens.names(None, now=11.0)


def test_only_news_counts_as_news() -> None:
    """Neither what is known, nor a shorter time, nor what is over."""
    tokens = RevokedTokens()
    assert tokens.add("t", 20.0, now=10.0)
    assert not tokens.add("t", 20.0, now=10.0)
    assert not tokens.add("t", 15.0, now=10.0)
    assert tokens.add("t", 30.0, now=10.0)
    assert not tokens.add("u", 10.0, now=10.0)


def test_a_token_whose_time_is_over_is_forgotten() -> None:
    """Not at each look, since that goes through all."""
    tokens = RevokedTokens()
    tokens.entries(10.0)
    tokens.add("t", 20.0, now=10.0)
    tokens.add("u", 500.0, now=10.0)
    assert len(tokens.entries(21.0)) == 2
    assert tokens.entries(10.0 + PRUNED_AFTER) == {"u": 500.0}
    assert len(tokens) == 1
