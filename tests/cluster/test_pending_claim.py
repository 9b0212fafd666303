"""A claim before its answer, and the errors with which it ends."""

import asyncio

import pytest

from cluster_pool import BackplaneUnavailableError, Connection, ConnectionClosedError
from cluster_pool.cluster.pending_claim import PendingClaim
from cluster_pool.local.membership import Membership
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


def pending_claim() -> PendingClaim:
    """A claim of ``alice`` in ``n``, with a second to go."""
    loop = asyncio.get_running_loop()
    membership = Membership(Connection("alice", "n", FakeWebSocket()), "n", "alice")
    return PendingClaim(membership, "1", True, loop.time() + 1, loop.create_future())


@pytest.mark.parametrize("sent", [False, True])
@async_test
async def test_an_error_says_whether_redis_may_have_carried_the_claim_out(sent: bool) -> None:
    """The error itself does not tell: claims of a batch share one."""
    pending = pending_claim()
    pending.sent = sent
    cause = BackplaneUnavailableError("the link is gone")
    pending.fail(cause)
    error = pending.won.exception()
    assert isinstance(error, BackplaneUnavailableError)
    assert error.maybe_executed is sent
    assert error.__cause__ is cause


@async_test
async def test_the_first_end_of_a_claim_counts() -> None:
    """A claim that is won stays won, and a later error does not replace an earlier one."""
    won, failed = pending_claim(), pending_claim()
    won.won.set_result(None)
    won.fail(ConnectionClosedError())
    await won.won
    failed.fail(ConnectionClosedError())
    failed.fail(BackplaneUnavailableError("too late"))
    assert isinstance(failed.won.exception(), ConnectionClosedError)
