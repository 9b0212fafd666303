"""Plain clients that come back 0 ms after they were closed, and check the numbers of what they get.

Run as ``python -m tools.harness.movers`` it is a program with the clients' commands.

Each message is ``ORDER KIND NUMBER``: ``ORDER`` grows with every message to the namespace, the
numbers of the kind ``b`` (to the namespace) and of the kind ``t`` (to one client) count from 1.
In between are the words of :mod:`tools.harness.telling`, where an application says them.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tools.harness.comers import Comers, Member, be_there
from tools.harness.internals import loop_factory
from tools.harness.telling import GAP, LOSS, WORD

Place = tuple[str, int]
"""A kind and a number."""


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
        self.missing: set[Place] = set()
        self._order = 0
        self._told: set[Place] = set()
        self._unsure: set[str] = set()
        """Kinds of which none has come since it was told that something may be missing."""

    def hear(self, text: str) -> None:
        """A message has come."""
        order, kind, number = text.split(" ")
        place, last = int(number), self.last[kind]
        if place <= last and (kind, place) not in self.missing:
            self.twice += 1
            return
        self.got += 1
        self.missing.discard((kind, place))
        holes = {(kind, between) for between in range(last + 1, place)}
        self.missing |= holes
        if kind in self._unsure:
            self._told |= holes
            self._unsure.remove(kind)
        self.last[kind] = max(last, place)
        self.late += int(order) < self._order
        self._order = max(self._order, int(order))

    def told(self) -> None:
        """The client is told that something may be missing: all that is, or was sent before the
        next message that comes."""
        self._told |= self.missing
        self._unsure = {"b", "t"}

    def lost(self, broadcasts: int, targeted: int) -> set[Place]:
        """The messages, of so many, that have not come."""
        sent = {"b": broadcasts, "t": targeted}
        tail = {(kind, at) for kind in sent for at in range(self.last[kind] + 1, sent[kind] + 1)}
        return self.missing | tail

    def untold(self, lost: set[Place]) -> set[Place]:
        """Those of the lost ones of which the client was not told."""
        silent = {
            (kind, at) for kind, at in lost if kind not in self._unsure or at <= self.last[kind]
        }
        return silent - self._told


class Movers(Comers):
    """The same, each with its :class:`Numbers`.

    Attributes:
        whole: how long it took from the begin of a handshake until the client was told whether it
            has got all that it missed, behind that, in seconds.
        words: how often there was which word.
    """

    def __init__(self) -> None:
        super().__init__()
        self._numbers: dict[Member, Numbers] = {}
        self._began: dict[Member, float] = {}
        self.whole: list[float] = []
        self.words: Counter[str] = Counter()

    async def come(self, port: int, members: Sequence[Member], absent: float = 0.0) -> None:
        """See :class:`Comers`; and wait until each has heard its first word."""
        self._numbers |= {(namespace, id): Numbers() for namespace, id in members}
        await super().come(port, members, absent)
        while self._began:  # noqa: ASYNC110  # any of many tasks
            await asyncio.sleep(0.005)
        self.whole.clear()
        self.words.clear()

    def _opened(self, member: Member, began: float) -> None:
        self._began[member] = began

    def _hear(self, member: Member, text: str) -> None:
        if not text.startswith(WORD):
            self._numbers[member].hear(text)
            return
        self.words[text.removeprefix(WORD)] += 1
        if text in LOSS:
            self._numbers[member].told()
        if text != GAP and (began := self._began.pop(member, None)) is not None:
            self.whole.append(time.monotonic() - began)

    async def report(self) -> dict[str, Any]:
        """See :class:`Comers`."""
        return await super().report() | {"whole": self.whole, "words": self.words}

    async def numbers(
        self,
        rooms: dict[str, int],
        alone: dict[str, int],
        unsure: Sequence[tuple[str, str, int]] = (),
    ) -> dict[str, Any]:
        """The numbers of all clients together. ``doubtful`` are messages that have not come, as
        their sender was told; they do not count as lost.

        Args:
            rooms: how many messages each namespace was sent.
            alone: how many each id was sent alone.
            unsure: kind, namespace or id, and number of messages that may not come, as their sender
                was told.
        """
        doubts: dict[tuple[str, str], set[Place]] = {}
        for kind, name, number in unsure:
            doubts.setdefault((kind, name), set()).add((kind, number))
        lost = silent = doubtful = 0
        for (namespace, id), one in self._numbers.items():
            doubt = doubts.get(("b", namespace), set()) | doubts.get(("t", id), set())
            missed = one.lost(rooms.get(namespace, 0), alone.get(id, 0))
            doubtful += len(missed & doubt)
            lost += len(missed - doubt)
            silent += len(one.untold(missed - doubt))
        numbers = self._numbers.values()
        return {
            "got": sum(one.got for one in numbers),
            "lost": lost,
            "untold": silent,
            "doubtful": doubtful,
            "twice": sum(one.twice for one in numbers),
            "most_twice": max((one.twice for one in numbers), default=0),
            "late": sum(one.late for one in numbers),
        }


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(be_there(Movers()))
