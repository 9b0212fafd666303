"""The terms of a drain, and a budget that is shared with no other process."""

import pytest

from cluster_pool import InvalidCloseError, InvalidValueError
from cluster_pool.core.drain_budget import DRAINING, Ask
from cluster_pool.local.drain_terms import LocalBudget, Terms
from tests.support import async_test


def test_terms_are_checked_when_they_are_made() -> None:
    """An empty message means none; a rate and a grace are above 0."""
    terms = Terms.of(5, "bye", 4000, 2, 100)
    assert (terms.max_rate, terms.code, terms.grace) == (5.0, 4000, 2.0)
    assert terms.message is not None
    assert terms.message.payload == b"bye"
    assert Terms.of(None, "", 1012, None, 100) == Terms()
    for rate, message, grace in (
        (0, "", None),
        ("1", "", None),
        (None, "", -1),
        (None, b"x" * 9, 1),
    ):
        with pytest.raises(InvalidValueError):
            Terms.of(rate, message, 1012, grace, 8)
    with pytest.raises(InvalidCloseError):
        Terms.of(None, "", 1005, None, 100)


@async_test
async def test_an_own_budget_grants_all_of_it() -> None:
    """There is no other drainer to share it with."""
    budget = LocalBudget()
    grant = await budget.lease(Ask("", DRAINING, 1000, 1000, max_rate=50.0))
    assert (grant.rate, grant.budget) == (50.0, 50.0)
    budget.give_back("")
    budget.give_back("")
