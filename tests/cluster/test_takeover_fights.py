"""Takeovers at one node: told, counted, and made slow where clients fight for an id."""

import asyncio
import logging

import pytest

from cluster_pool import Connection
from cluster_pool.cluster.pending_claim import PendingClaim
from cluster_pool.cluster.takeover_fights import TakeoverFights
from cluster_pool.core.statistics import Counters
from cluster_pool.core.takeovers import FIRST_DELAY, TOLERATED
from cluster_pool.local.membership import Membership
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


@async_test
async def test_an_id_that_is_fought_for_is_told_once_and_its_claims_wait(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Other ids of the namespace are claimed at once meanwhile."""
    counters, told = Counters(), list[Connection]()
    fights = TakeoverFights(counters, told.append)
    loop = asyncio.get_running_loop()

    def pending(id: str) -> PendingClaim:
        membership = Membership(Connection(id, "n", FakeWebSocket()), "n", id)
        return PendingClaim(membership, "1", True, loop.time() + 60, loop.create_future())

    alice, bob = pending("alice"), pending("bob")
    with caplog.at_level(logging.INFO, "cluster_pool"):
        for _ in range(TOLERATED + 1):
            fights.note(alice.membership)
    assert told == [alice.membership.connection] * (TOLERATED + 1)
    assert (counters.taken_over, counters.takeover_fights) == (TOLERATED + 1, 1)
    assert len(caplog.records) == 1
    await fights.slow_down(bob)
    assert counters.delayed_claims == 0
    before = loop.time()
    await fights.slow_down(alice)
    assert loop.time() - before >= FIRST_DELAY * 0.9
    assert counters.delayed_claims == 1
