"""Claims as Redis stores them."""

from cluster_pool.core.claims import Claim, incarnation_of
from cluster_pool.core.ids import (
    base36,
)


def test_claims_are_short_and_read_back() -> None:
    """A stored claim has at most 40 bytes."""
    claim = Claim(incarnation_of("aBcd-_12", 99), 1795412345678901, base36(10**9))
    assert Claim.parse(str(claim)) == claim
    assert len(str(claim)) <= 40
    assert claim.start == "aBcd-_12"
