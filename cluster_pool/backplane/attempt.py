"""One attempt at a generation of a shard: its progress, and the work that it consists of."""

import asyncio
import math
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Attempt:
    """The progress of one generation."""

    reached: bool = False
    up_since: float = math.inf
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""

    @property
    def up(self) -> bool:
        """Whether it has heard its own probe."""
        return self.up_since != math.inf


async def until_one_fails(*works: Coroutine[Any, Any, None]) -> None:
    """Run coroutines that never end by themselves, until one raises; then cancel all and raise it.

    A TaskGroup loses a cancellation that comes together with a failure.
    """
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
