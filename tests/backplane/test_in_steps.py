"""Long walks let other tasks run in between."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from cluster_pool.backplane.in_steps import AT_ONCE, STEP, in_steps, overlapped
from tests.support import async_test


@async_test
async def test_a_long_walk_takes_a_turn_of_the_loop_for_each_step() -> None:
    """Another task runs between two steps, and every item comes once and in order."""
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    parts = [part async for part in in_steps(range(10 * STEP + 1))]
    counting.cancel()
    assert turns >= 10
    assert [len(part) for part in parts] == [STEP] * 10 + [1]
    assert [item for part in parts for item in part] == list(range(10 * STEP + 1))


@async_test
async def test_a_walk_goes_over_what_there_was_at_its_beginning() -> None:
    """Items may be added and removed meanwhile; a walk over nothing has no step."""
    items = dict.fromkeys(range(STEP + 1))
    seen = 0
    async for part in in_steps(items):
        seen += len(part)
        items.pop(0, None)
        items[-seen] = None
    assert seen == STEP + 1
    assert [part async for part in in_steps(())] == []


class Works:
    """Works that end when a test says so."""

    def __init__(self, count: int) -> None:
        self.begun: list[int] = []
        self.ended: list[int] = []
        self.may_end = [asyncio.Event() for _ in range(count)]
        self.failing: set[int] = set()

    async def each(self) -> AsyncIterator[Coroutine[Any, Any, int]]:
        for number in range(len(self.may_end)):
            yield self.work(number)

    async def work(self, number: int) -> int:
        self.begun.append(number)
        try:
            await self.may_end[number].wait()
        finally:
            self.ended.append(number)
        if number in self.failing:
            raise ValueError(number)
        return number


async def turns() -> None:
    """Let all others run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


@async_test
async def test_a_work_begins_while_the_one_before_it_is_waited_for() -> None:
    """No more than two, so that Redis serves others as well; results come in order."""
    works = Works(4)
    done = asyncio.create_task(overlapped(works.each()))
    await turns()
    assert works.begun == [0, 1]
    works.may_end[1].set()
    await turns()
    assert works.begun == [0, 1]
    works.may_end[0].set()
    await turns()
    assert works.begun == [0, 1, 2, 3]
    assert len(works.begun) - len(works.ended) <= AT_ONCE
    for event in works.may_end:
        event.set()
    assert await done == [0, 1, 2, 3]


@async_test
async def test_a_work_that_fails_leaves_none_half_done() -> None:
    """Those behind it do not begin; the one under way ends before the error is raised."""
    works = Works(4)
    works.failing = {0, 1}
    done = asyncio.create_task(overlapped(works.each()))
    await turns()
    works.may_end[0].set()
    await turns()
    assert not done.done()
    works.may_end[1].set()
    with pytest.raises(ValueError, match="0"):
        await done
    assert works.ended == [0, 1]


@async_test
async def test_works_end_when_they_are_cancelled() -> None:
    """All that had begun."""
    works = Works(4)
    done = asyncio.create_task(overlapped(works.each()))
    await turns()
    done.cancel()
    with pytest.raises(asyncio.CancelledError):
        await done
    assert works.ended == [0, 1]
