"""Replies of queued commands, and what becomes of those that are late, refused or not asked for."""

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.calls import Reply, deadline_in, in_time, pairs, text_of, texts
from tests.support import async_test


def call() -> asyncio.Future[Any]:
    """A queued command without a reply yet."""
    return asyncio.get_running_loop().create_future()


@async_test
async def test_a_reply_is_given_as_its_reader_understands_it() -> None:
    """The reader gets what Redis said, when it said it."""
    queued = call()
    reply: Reply[int] = Reply(queued, int)
    asyncio.get_running_loop().call_soon(queued.set_result, b"7")
    assert await reply == 7


@async_test
async def test_several_replies_can_be_gathered() -> None:
    """They are awaitables like any other."""
    calls = [call() for _ in range(3)]
    for number, queued in enumerate(calls):
        queued.set_result(number)
    assert await asyncio.gather(*[Reply(queued, str) for queued in calls]) == ["0", "1", "2"]


@async_test
async def test_a_late_reply_may_have_been_executed() -> None:
    """The command was queued: nobody knows what became of it."""
    with pytest.raises(BackplaneUnavailableError, match="did not answer in time") as raised:
        await Reply(call(), int, deadline_in(0.01))
    assert raised.value.maybe_executed


@async_test
async def test_what_redis_refuses_is_said_in_full() -> None:
    """The error is ours; the one of redis-py is its cause."""
    queued = call()
    queued.set_exception(ResponseError("OOM command not allowed"))
    with pytest.raises(BackplaneUnavailableError, match="Redis refused: OOM") as raised:
        await Reply(queued, int)
    assert isinstance(raised.value.__cause__, ResponseError)
    assert not raised.value.maybe_executed


@async_test
async def test_a_reply_that_nobody_awaits_reports_nothing() -> None:
    """Neither a failure nor the awaitable itself leaves a complaint behind."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
    queued = call()
    Reply(queued, int)
    queued.set_exception(ResponseError("no"))
    await asyncio.sleep(0)
    del queued
    gc.collect()
    assert not complaints


@pytest.mark.parametrize("read", [text_of, lambda raw: texts([raw]), lambda raw: pairs([raw, raw])])
def test_what_is_no_text_is_left_out(read: Callable[[bytes], object]) -> None:
    """Anybody may write bytes into our keys; nothing of ours is not UTF-8."""
    assert read(b"good")
    assert not read(b"\xff")


def test_a_script_that_ran_after_its_deadline_is_an_error() -> None:
    """It changed nothing, and says so."""
    assert in_time([b"OK", 1]) == [b"OK", 1]
    with pytest.raises(BackplaneUnavailableError, match="nothing was changed"):
        in_time([b"LATE"])
