"""Long walks over namespaces or channels, of which a node may have 100,000, in several turns."""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Coroutine, Iterable
from typing import Any, Final, TypeVar

T = TypeVar("T")

STEP: Final = 2_000
"""Names that are looked at in one turn of the loop: their slots take 2 ms."""
AT_ONCE: Final = 2
"""Works that are under way together."""


async def in_steps(items: Iterable[T]) -> AsyncIterator[list[T]]:
    """Parts of ``items`` as they are when this begins; other tasks run between two of them."""
    every = list(items)
    for at in range(0, len(every), STEP):
        if at:
            await asyncio.sleep(0)
        yield every[at : at + STEP]


async def overlapped(works: AsyncIterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Await works in their order, two at a time; gives their results.

    Each of them asks Redis for much, and waits for the answers. With one at a time this process
    would do nothing while Redis works, and Redis nothing while this process reads.

    Raises the error of the first that fails, when the one behind it has ended, too.
    """
    results: list[T] = []
    running: deque[asyncio.Task[T]] = deque()
    try:
        async for work in works:
            running.append(asyncio.create_task(work))
            if len(running) == AT_ONCE:
                results.append(await running[0])
                running.popleft()
        while running:
            results.append(await running[0])
            running.popleft()
    except asyncio.CancelledError:
        for task in running:
            task.cancel()
        raise
    finally:
        await asyncio.gather(*running, return_exceptions=True)
    return results
