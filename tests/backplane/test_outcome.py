"""Outcomes: futures that may stand where asyncio wants a coroutine."""

import asyncio

import pytest

from cluster_pool.backplane.outcome import Outcome, gives_coroutine
from tests.support import async_test


def outcome() -> Outcome[int]:
    """An outcome that is not known yet."""
    return Outcome(loop=asyncio.get_running_loop())


def soon(made: Outcome[int], result: int) -> Outcome[int]:
    """The outcome, which is known after some turns."""
    asyncio.get_running_loop().call_later(0.01, made.set_result, result)
    return made


@async_test
async def test_it_is_a_future_and_a_coroutine() -> None:
    """Without a task where a future is enough, and as a task where one is asked for."""
    assert await soon(outcome(), 1) == 1
    one = soon(outcome(), 2)
    assert asyncio.ensure_future(one) is one
    assert await asyncio.gather(one, soon(outcome(), 3)) == [2, 3]
    assert await asyncio.wait_for(soon(outcome(), 4), 10) == 4
    assert await asyncio.create_task(soon(outcome(), 5)) == 5
    async with asyncio.TaskGroup() as group:
        task = group.create_task(soon(outcome(), 6))
    assert task.result() == 6
    known = outcome()
    known.set_result(7)
    assert await asyncio.create_task(known) == 7


@async_test
async def test_an_error_reaches_the_task_that_waits() -> None:
    """As one of a coroutine does."""
    failed = outcome()
    task = asyncio.create_task(failed)
    await asyncio.sleep(0)
    failed.set_exception(OSError("no"))
    with pytest.raises(OSError, match="no"):
        await task


@async_test
@pytest.mark.parametrize("begun", [True, False])
async def test_a_cancelled_task_drops_the_operation(begun: bool) -> None:
    """Also one that has not begun to wait."""
    waiting = outcome()
    task = asyncio.create_task(waiting)
    if begun:
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert waiting.cancelled()


@async_test
async def test_closing_it_drops_the_operation() -> None:
    """Unless it is over."""
    open_one, known = outcome(), outcome()
    known.set_result(1)
    open_one.close()
    known.close()
    assert open_one.cancelled()
    assert await known == 1


def test_frameworks_see_a_coroutine_function() -> None:
    """They run others in a thread."""
    assert not asyncio.iscoroutinefunction(outcome)
    assert asyncio.iscoroutinefunction(gives_coroutine(lambda: None))
