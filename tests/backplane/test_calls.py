"""Replies to queued commands: read, late, refused, or not awaited."""

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
    """The reader gets Redis's reply and the time of its arrival."""
    queued = call()
    reply: Reply[int] = Reply(queued, int)
    asyncio.get_running_loop().call_soon(queued.set_result, b"7")
    assert await reply == 7


@async_test
async def test_several_replies_can_be_gathered() -> None:
    """They can be awaited like any other."""
    calls = [call() for _ in range(3)]
    for number, queued in enumerate(calls):
        queued.set_result(number)
    assert await asyncio.gather(*[Reply(queued, str) for queued in calls]) == ["0", "1", "2"]


@async_test
async def test_a_late_reply_may_have_been_executed() -> None:
    """The command was queued, so it may have been carried out."""
    with pytest.raises(BackplaneUnavailableError, match="did not answer in time") as raised:
        await Reply(call(), int, deadline_in(0.01))
    assert raised.value.maybe_executed


@async_test
async def test_an_error_of_redis_is_quoted_in_full() -> None:
    """The error is ours; the one of redis-py is its cause."""
    queued = call()
    queued.set_exception(ResponseError("OOM command not allowed"))
    with pytest.raises(BackplaneUnavailableError, match="Redis refused: OOM") as raised:
        await Reply(queued, int)
    assert isinstance(raised.value.__cause__, ResponseError)
    assert not raised.value.maybe_executed


@async_test
async def test_a_reply_that_is_not_awaited_reports_nothing() -> None:
    """Neither a failure nor the awaitable itself logs a complaint."""
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
def test_bytes_that_are_not_utf8_are_skipped(read: Callable[[bytes], object]) -> None:
    """Foreign clients may write any bytes into our keys; we write UTF-8 only."""
    assert read(b"good")
    assert not read(b"\xff")


def test_a_script_that_ran_after_its_deadline_is_an_error() -> None:
    """It changed nothing, and its reply says so."""
    assert in_time([b"OK", 1]) == [b"OK", 1]
    with pytest.raises(BackplaneUnavailableError, match="nothing was changed"):
        in_time([b"LATE"])
