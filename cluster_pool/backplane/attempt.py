"""The progress of an attempt at one generation of a shard."""

import asyncio
import math
from dataclasses import dataclass, field


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
