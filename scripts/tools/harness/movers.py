"""Plain clients that come back 0 ms after they were closed, and check the numbers of what they get.

Run as ``python -m tools.harness.movers`` it is a program with the clients' commands.

Each message is ``ORDER KIND NUMBER``: ``ORDER`` grows with every message to the namespace, the
numbers of the kind ``b`` (to the namespace) and of the kind ``t`` (to one client) count from 1.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

from tools.harness.comers import Comers, Member, be_there
from tools.harness.internals import loop_factory


class Numbers:
    """The numbers that one client has got.

    Attributes:
        got: how many messages, each counted once.
        twice: how many came again.
        late: how many came behind a later one of their namespace.
        last: the greatest number of each kind.
        missing: those below it that have not come.
    """

    def __init__(self) -> None:
        self.got = self.twice = self.late = 0
        self.last = {"b": 0, "t": 0}
        self.missing: set[tuple[str, int]] = set()
        self._order = 0

    def hear(self, text: str) -> None:
        """A message has come."""
        order, kind, number = text.split(" ")
        place, last = int(number), self.last[kind]
        if place <= last and (kind, place) not in self.missing:
            self.twice += 1
            return
        self.got += 1
        self.missing.discard((kind, place))
        self.missing |= {(kind, between) for between in range(last + 1, place)}
        self.last[kind] = max(last, place)
        self.late += int(order) < self._order
        self._order = max(self._order, int(order))

    def lost(self, broadcasts: int, targeted: int) -> int:
        """How many of so many messages have not come."""
        return len(self.missing) + broadcasts - self.last["b"] + targeted - self.last["t"]


class Movers(Comers):
    """The same, each with its :class:`Numbers`."""

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[Member, Numbers] = {}

    async def come(self, port: int, members: Sequence[Member], absent: float = 0.0) -> None:
        """See :class:`Comers`."""
        self._numbers = {(namespace, id): Numbers() for namespace, id in members}
        await super().come(port, members, absent)

    def _hear(self, member: Member, text: str) -> None:
        self._numbers[member].hear(text)

    async def numbers(self, rooms: dict[str, int], alone: dict[str, int]) -> dict[str, Any]:
        """The numbers of all clients together.

        Args:
            rooms: how many messages each namespace was sent.
            alone: how many each id was sent alone.
        """
        numbers = self._numbers.items()
        return {
            "got": sum(one.got for _, one in numbers),
            "lost": sum(one.lost(rooms.get(m[0], 0), alone.get(m[1], 0)) for m, one in numbers),
            "twice": sum(one.twice for _, one in numbers),
            "most_twice": max((one.twice for _, one in numbers), default=0),
            "late": sum(one.late for _, one in numbers),
        }


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(be_there(Movers()))
