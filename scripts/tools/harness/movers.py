"""Plain clients that come back 0 ms after they were closed, and check the numbers of what they get.

Run as ``python -m tools.harness.movers`` it is a program with the clients' commands.

Each message is ``ORDER KIND NUMBER``: ``ORDER`` grows with every message to the namespace, the
numbers of the kind ``b`` (to the namespace) and of the kind ``t`` (to one client) count from 1.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from tools.harness.internals import loop_factory
from tools.harness.obeying import answer, obey_object
from tools.harness.ports import HOST

REFUSED_PAUSE = 0.25
"""Seconds, on average, that a client waits after it was refused."""
TOGETHER = 100

Member = tuple[str, str]
"""Namespace and id."""


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


class Movers:
    """Its methods are commands: :meth:`come` first, :meth:`leave` last."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []
        self._open: set[Member] = set()
        self._numbers: dict[Member, Numbers] = {}
        self._codes: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._handshakes: list[float] = []

    async def come(self, port: int, members: Sequence[Member]) -> None:
        """Open all of them, wait until they are, and count from then on."""
        for at in range(0, len(members), TOGETHER):
            some = [(namespace, id) for namespace, id in members[at : at + TOGETHER]]
            self._numbers |= {member: Numbers() for member in some}
            self._tasks += [asyncio.create_task(self._stay(port, member)) for member in some]
            while await self.away():  # noqa: ASYNC110  # any of many tasks
                await asyncio.sleep(0.005)
        for counted in (self._codes, self._refused, self._handshakes):
            counted.clear()

    async def away(self) -> int:
        """How many are not open; none of them may have given up."""
        for task in self._tasks:
            if task.done():
                task.result()
        return len(self._tasks) - len(self._open)

    async def report(self, rooms: dict[str, int], alone: dict[str, int]) -> dict[str, Any]:
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
            "codes": self._codes,
            "refused": self._refused,
            "handshakes": self._handshakes,
        }

    async def leave(self) -> None:
        """Come back no more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _stay(self, port: int, member: Member) -> None:
        namespace, id = member
        url = f"ws://{HOST}:{port}/ws/{namespace}?id={id}"
        while True:
            began = time.monotonic()
            try:
                websocket = await connect(url, compression=None, ping_interval=None, proxy=None)
            except (InvalidHandshake, OSError, EOFError) as error:
                self._refused[str(error)] += 1
                await asyncio.sleep(random.uniform(0, 2 * REFUSED_PAUSE))
                continue
            self._handshakes.append(time.monotonic() - began)
            self._open.add(member)
            try:
                with contextlib.suppress(ConnectionClosed):
                    while True:
                        self._numbers[member].hear(str(await websocket.recv()))
                self._codes[str(websocket.close_code)] += 1
            finally:
                self._open.discard(member)
                websocket.transport.abort()


async def main() -> None:
    """Be there until standard input ends."""
    movers = Movers()
    answer()
    await obey_object(movers)
    await movers.leave()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main())
