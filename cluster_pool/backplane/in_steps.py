"""Long walks over namespaces or channels, of which a node may have 100,000, in several turns."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Final, TypeVar

T = TypeVar("T")

STEP: Final = 2_000
"""Names that are looked at in one turn of the loop: their slots take 2 ms."""


async def in_steps(items: Iterable[T]) -> AsyncIterator[list[T]]:
    """Parts of ``items`` as they are when this begins; other tasks run between two of them."""
    every = list(items)
    for at in range(0, len(every), STEP):
        if at:
            await asyncio.sleep(0)
        yield every[at : at + STEP]
