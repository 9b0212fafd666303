"""Members that join rooms and leave them all the time, under their own ids and under ids of others.

Nothing is sent to the rooms. In the end the registry must have what the nodes hold there.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from cluster_pool import ClusterPool, ClusterPoolError, Connection
from tools.chaos.caller import TIMEOUT
from tools.chaos.streams import Ticker
from tools.chaos.watch import Watch
from tools.harness.internals import held_in
from tools.harness.obeying import tell

GUESTS = 5
"""Ids in each room that members of all nodes take from one another."""
AS_GUEST, GIVEN_UP = 0.2, 0.1
"""The parts of joins under such an id, and of steps whose caller gives up at once."""


def rooms_of(count: int) -> list[str]:
    """So many rooms."""
    return [f"room-{at}" for at in range(count)]


class Roaming(Ticker):
    """The steps of one node's members."""

    def __init__(self, pool: ClusterPool, members: Sequence[Connection]) -> None:
        super().__init__(self._one)
        self._pool = pool
        self._members = members
        self._rooms: list[str] = []
        self._random = random.Random(pool.node_id)
        self._steps: set[asyncio.Task[None]] = set()
        self._watch = Watch(lambda about, seconds: tell("logged", [about, f"took {seconds:.1f} s"]))
        self._watching = asyncio.create_task(self._watch.run())

    def roam(self, rooms: list[str], rate: float) -> None:
        """Take so many steps a second between these rooms from now on."""
        self._rooms = rooms
        self.begin(rate)

    async def end(self) -> None:
        """Take no more steps, and wait until each of them is answered, or overdue and cancelled."""
        await super().end()
        while self._steps:
            await asyncio.wait(self._steps)

    async def stop(self) -> None:
        """Watch no more."""
        await self.end()
        self._watching.cancel()
        await asyncio.gather(self._watching, return_exceptions=True)

    def held(self) -> list[tuple[str, str, str]]:
        """The members that this node has in the rooms: room, id, node."""
        name = self._pool.node_id
        return [(room, id, name) for room in self._rooms for id in held_in(self._pool, room)]

    def _one(self) -> None:
        member, room = self._random.choice(self._members), self._random.choice(self._rooms)
        if room in member.namespaces:
            step = self._step(f"leaving {room}", partial(member.leave, room))
        else:
            guest = self._random.random() < AS_GUEST
            id = f"guest-{self._random.randrange(GUESTS)}" if guest else None
            step = self._step(f"joining {room}", partial(member.join, room, id=id))
        task = asyncio.create_task(step)
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        if self._random.random() < GIVEN_UP:
            asyncio.get_running_loop().call_later(self._random.expovariate(1000), task.cancel)

    async def _step(self, about: str, take: Callable[[], Awaitable[None]]) -> None:
        watched = self._watch.begin(f"{about} at {self._pool.node_id}", TIMEOUT)
        try:
            await take()
        except ClusterPoolError:
            pass  # the room is as it was, or will be as Redis says: the registry is what is judged
        finally:
            self._watch.end(watched)
