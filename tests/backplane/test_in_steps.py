"""Long walks let other tasks run in between."""

import asyncio

from cluster_pool.backplane.in_steps import STEP, in_steps
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
