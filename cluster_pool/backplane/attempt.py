"""How far the attempt at one generation of a shard has come."""

import asyncio
import math
from dataclasses import dataclass, field


@dataclass(slots=True)
class Attempt:
    """How far a generation has come.

    Attributes:
        reached: whether Redis has accepted both sockets.
        up_since: when it first heard its own probe; inf before.
        unwanted: set when it shall end although its sockets work.
        why: the reason for that.
    """

    reached: bool = False
    up_since: float = math.inf
    unwanted: asyncio.Event = field(default_factory=asyncio.Event)
    why: str = ""

    @property
    def up(self) -> bool:
        """Whether it has heard its own probe."""
        return self.up_since != math.inf
