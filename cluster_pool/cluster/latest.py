"""The latest things that were written to Redis, of which a failover may lose every trace."""

from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

MOST: Final = 5000
"""How many are remembered: a replica is seconds behind its primary, and not minutes."""


class Latest(Generic[T]):
    """The latest things that were noted, the oldest first; at most :data:`MOST`.

    They stay when they were looked at: a primary that lost its links may answer a comparison before
    its replica takes over.
    """

    def __init__(self) -> None:
        self._things: dict[T, None] = {}

    def note(self, thing: T) -> None:
        """It is the latest now."""
        self._things.pop(thing, None)
        self._things[thing] = None
        if len(self._things) > MOST:
            del self._things[next(iter(self._things))]

    def __iter__(self) -> Iterator[T]:
        return iter(self._things)
