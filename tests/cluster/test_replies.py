"""Answers find the call that waits for them."""

import pytest

from cluster_pool import PoolClosedError, SendResult
from cluster_pool.cluster.replies import Replies
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from tests.support import async_test


@async_test
async def test_an_answer_ends_the_call_that_asked() -> None:
    """By number and start; one that came twice, or for a call that is over, is ignored."""
    identity = Identity(Keys(), "node-1")
    replies = Replies(identity)
    (to, word), (other, other_word) = replies.expect(), replies.expect()
    assert (to.node, to.start) == ("node-1", identity.start)
    assert to.request != other.request
    replies.heard(to.request, "another start", SendResult.REFUSED)
    assert not word.done()
    for result in (SendResult.DELIVERED, SendResult.ABSENT):
        replies.heard(to.request, identity.start, result)
    assert await word is SendResult.DELIVERED
    replies.forget(other)
    replies.heard(other.request, identity.start, SendResult.DELIVERED)
    assert not other_word.done()


@async_test
async def test_calls_that_wait_at_the_stop_fail() -> None:
    """And no answer is lost that had come before."""
    replies = Replies(Identity(Keys(), "node-1"))
    (to, word), (_, late) = replies.expect(), replies.expect()
    replies.heard(to.request, to.start, "why not")
    replies.stop()
    assert await word == "why not"
    with pytest.raises(PoolClosedError):
        await late
