"""The end of a broadcast that waits for what all nodes say of it."""

import asyncio

import pytest

from cluster_pool import BackplaneUnavailableError, BroadcastReport
from cluster_pool.cluster.gathering import Gathering
from cluster_pool.cluster.replies import Replies
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.tally import Tally
from tests.support import async_test

Sent = asyncio.Future[int]


def gathering(seconds: float = 30.0) -> tuple[Replies, Gathering, Sent]:
    """One whose broadcast is queued, with this much time."""
    loop = asyncio.get_running_loop()
    replies = Replies(Identity(Keys("cluster_pool")))
    made = Gathering(replies, loop.time() + seconds, loop)
    sent: Sent = loop.create_future()
    made.begin(sent)
    return replies, made, sent


def answer(replies: Replies, made: Gathering, node: str, tally: Tally) -> None:
    replies.counted(made.to.request, made.to.start, node, tally)


@async_test
async def test_it_ends_when_all_have_answered() -> None:
    """Whether Redis or the nodes answer first; an answer that came twice counts once, and one to
    another process not at all."""
    for early in (True, False):
        replies, made, sent = gathering()
        if not early:
            sent.set_result(2)
            await asyncio.sleep(0)
        replies.counted(made.to.request, "another start", "c", Tally(9))
        for node, number in (("a", 1), ("a", 1), ("b", 2)):
            assert not made.result.done()
            answer(replies, made, node, Tally(number))
        if early:
            sent.set_result(2)
        assert await made.result == BroadcastReport(2, delivered=3)
        await asyncio.sleep(0)
        assert not replies._gathering


@async_test
async def test_broadcast_that_nobody_hears_ends_at_once() -> None:
    _, made, sent = gathering()
    sent.set_result(0)
    assert await made.result == BroadcastReport()


@async_test
async def test_at_the_deadline_the_others_are_silent() -> None:
    replies, made, sent = gathering(0.05)
    sent.set_result(3)
    answer(replies, made, "a", Tally(1, 1))
    assert await made.result == BroadcastReport(3, delivered=1, refused=1, silent=2)


@async_test
async def test_errors_and_cancellation() -> None:
    """A broadcast that was not sent raises; a result that nobody wants drops it."""
    replies, made, sent = gathering()
    sent.set_exception(BackplaneUnavailableError("away"))
    with pytest.raises(BackplaneUnavailableError):
        await made.result
    for cancelled in (0, 1):
        replies, made, sent = gathering()
        (made.result, sent)[cancelled].cancel()
        await asyncio.wait([made.result])
        await asyncio.sleep(0)
        assert made.result.cancelled()
        assert sent.cancelled()
        assert not replies._gathering


@async_test
async def test_a_stop_ends_it_with_what_has_come() -> None:
    """Once it is known whether it was sent."""
    for early in (True, False):
        replies, made, sent = gathering()
        answer(replies, made, "a", Tally(1))
        if early:
            replies.stop()
        sent.set_result(2)
        await asyncio.sleep(0)
        if not early:
            replies.stop()
        assert await made.result == BroadcastReport(2, delivered=1, silent=1)
