"""The end of a call that waits for its owner's answer."""

import asyncio
from dataclasses import dataclass

import pytest

from cluster_pool import BackplaneUnavailableError, PoolClosedError, SendResult
from cluster_pool.cluster.confirmation import Confirmation
from cluster_pool.cluster.replies import Replies
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from tests.support import async_test


@dataclass
class Call:
    """A confirmed call whose item is queued."""

    replies: Replies
    sent: asyncio.Future[SendResult]
    answer: asyncio.Future[SendResult]
    result: asyncio.Future[SendResult]

    @property
    def waiting(self) -> int:
        """Answers that are awaited."""
        return len(self.replies._waiting)


def call(seconds: float = 30.0) -> Call:
    """A call that has this much time."""
    loop = asyncio.get_running_loop()
    replies = Replies(Identity(Keys("cluster_pool")))
    to, answer = replies.expect()
    sent: asyncio.Future[SendResult] = loop.create_future()
    result: asyncio.Future[SendResult] = loop.create_future()
    Confirmation(replies, to, answer, loop.time() + seconds, result).begin(sent)
    return Call(replies, sent, answer, result)


@async_test
async def test_the_answer_is_the_result() -> None:
    """Whether Redis or the owner answers first, or both at once; nothing waits any more then."""
    for order, pause in (((0, 1), 1), ((1, 0), 1), ((0, 1), 0), ((1, 0), 0)):
        made = call()
        futures = [made.sent, made.answer]
        results = [SendResult.ROUTED, SendResult.REFUSED]
        for at in order:
            if not futures[at].done():
                futures[at].set_result(results[at])
            for _ in range(pause):
                await asyncio.sleep(0)
        assert await made.result is SendResult.REFUSED
        await asyncio.sleep(0)
        assert made.waiting == 0
        assert made.sent.done()


@async_test
async def test_an_item_that_was_not_routed_has_no_answer() -> None:
    """Its own result or error is the call's."""
    made = call()
    made.sent.set_result(SendResult.ABSENT)
    assert await made.result is SendResult.ABSENT
    made = call()
    made.sent.set_exception(BackplaneUnavailableError("away"))
    with pytest.raises(BackplaneUnavailableError, match="away"):
        await made.result
    await asyncio.sleep(0)
    assert made.waiting == 0


@async_test
async def test_without_an_answer_it_is_timed_out() -> None:
    """At the deadline, or when this process stops: the item is on its way."""
    late = call(0.02)
    late.sent.set_result(SendResult.ROUTED)
    assert await late.result is SendResult.TIMED_OUT
    for sent_first in (False, True):
        made = call()
        if sent_first:
            made.sent.set_result(SendResult.ROUTED)
            await asyncio.sleep(0)
        made.replies.stop()
        await asyncio.sleep(0)
        if not sent_first:
            assert not made.result.done()
            made.sent.set_result(SendResult.ROUTED)
        assert await made.result is SendResult.TIMED_OUT
        assert isinstance(made.answer.exception(), PoolClosedError)


@async_test
async def test_a_cancelled_call_drops_its_item() -> None:
    """Until it was written to Redis; and nothing waits for its answer."""
    made = call()
    made.result.cancel()
    await asyncio.sleep(0)
    assert made.sent.cancelled()
    assert made.waiting == 0
    made = call()
    made.sent.cancel()
    with pytest.raises(asyncio.CancelledError):
        await made.result
