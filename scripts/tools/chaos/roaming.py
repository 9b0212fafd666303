"""Members that join rooms and leave them all the time, under their own ids and under ids of others.

Most have an info, and change it. Nothing is sent to the rooms. In the end the registry must have
what the nodes hold there, and so must everyone who watches a room.
"""

import asyncio
import contextlib
import itertools
import json
import random
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPool,
    ClusterPoolError,
    Connection,
    Member,
    Presence,
    SendResult,
)
from tools.chaos.caller import TIMEOUT
from tools.chaos.streams import Ticker
from tools.chaos.watch import Watch
from tools.harness.internals import infos_in
from tools.harness.obeying import tell

GUEST, GUESTS = "guest-", 5
"""Ids in each room that members of all nodes take from one another."""
AS_GUEST, GIVEN_UP = 0.2, 0.1
"""The parts of joins under such an id, and of steps whose caller gives up at once."""
FROM_AFAR = 0.15
"""The part of steps that a node asks for, of a member of any node in a room that it watches."""
ANSWERED = SendResult.DELIVERED, SendResult.REFUSED, SendResult.ABSENT
UPDATES = 0.4
"""The part of steps of a member in its room that change its info."""
WATCHED = 5
"""Rooms that each node watches."""
EVERY = 0.2
"""Seconds between the changes that a watcher is given, at least."""

Row = tuple[str, str, str, str]
"""A member of a room: room, id, node, and its info as JSON."""


def row(room: str, member: Member) -> Row:
    """A member as the registry tells it."""
    return room, member.id, member.node, info_of(member.info)


def info_of(info: Any) -> str:
    """An info as JSON; "" for none."""
    return "" if info is None else json.dumps(info, separators=(",", ":"))


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
        self._presences: dict[str, Presence] = {}
        self._following: list[asyncio.Task[None]] = []
        self._infos = itertools.count(1)

    def roam(self, rooms: list[str], rate: float) -> None:
        """Take so many steps a second between these rooms from now on."""
        if not self._rooms:
            self._following = [asyncio.create_task(self._follow(one)) for one in rooms[:WATCHED]]
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
        for task in (self._watching, *self._following):
            task.cancel()
        await asyncio.gather(self._watching, *self._following, return_exceptions=True)

    def held(self) -> list[Row]:
        """The members that this node has in the rooms."""
        name = self._pool.node_id
        return [
            (room, id, name, info)
            for room in self._rooms
            for id, info in infos_in(self._pool, room).items()
        ]

    def watched(self) -> list[Row]:
        """The members of the rooms that this node watches."""
        return [
            row(room, member)
            for room, presence in self._presences.items()
            for member in presence.members.values()
        ]

    async def _follow(self, room: str) -> None:
        """Watch a room; where Redis is away at the beginning, try again."""
        while True:
            with contextlib.suppress(BackplaneUnavailableError):
                async with self._pool.presence(room, every=EVERY) as presence:
                    self._presences[room] = presence
                    async for _ in presence:
                        pass
            await asyncio.sleep(EVERY)

    def _one(self) -> None:
        room = self._random.choice(self._rooms)
        step = self._from_afar(room) if self._random.random() < FROM_AFAR else self._own(room)
        task = asyncio.create_task(step)
        self._steps.add(task)
        task.add_done_callback(self._steps.discard)
        if self._random.random() < GIVEN_UP:
            asyncio.get_running_loop().call_later(self._random.expovariate(1000), task.cancel)

    def _own(self, room: str) -> Coroutine[None, None, None]:
        """A step of a member of this node."""
        member = self._random.choice(self._members)
        info = self._random.choice([None, {"number": next(self._infos)}])
        if room in member.namespaces and self._random.random() < UPDATES:
            update = partial(member.update_info, info, namespace=room)
            return self._step(f"updating in {room}", update)
        if room in member.namespaces:
            return self._step(f"leaving {room}", partial(member.leave, room))
        id = self._guest()
        return self._step(f"joining {room}", partial(member.join, room, id=id, info=info))

    def _from_afar(self, room: str) -> Coroutine[None, None, None]:
        """Let a member that this node sees join this room, or leave the one where it sees it."""
        seen = self.watched()
        if not seen:
            return self._own(room)
        there, id, *_ = self._random.choice(seen)
        if self._random.random() < 0.5:
            leave = partial(self._pool.leave, there, id, there)
            return self._step(f"{id} leaving {there} from afar", partial(self._ask, leave))
        join = partial(self._pool.join, there, id, room, as_id=self._guest())
        return self._step(f"{id} joining {room} from afar", partial(self._ask, join))

    async def _ask(self, what: Callable[[], Awaitable[SendResult]]) -> None:
        """Ask another node; a gap may name it until it is answered."""
        tell("unkept", ["", 1])
        if await what() in ANSWERED:
            tell("unkept", ["", -1])

    def _guest(self) -> str | None:
        """An id that others take, too; or its own."""
        guest = self._random.random() < AS_GUEST
        return f"{GUEST}{self._random.randrange(GUESTS)}" if guest else None

    async def _step(self, about: str, take: Callable[[], Awaitable[object]]) -> None:
        watched = self._watch.begin(f"{about} at {self._pool.node_id}", TIMEOUT)
        try:
            await take()
        except ClusterPoolError:
            pass  # the room is as it was, or will be as Redis says: the registry is what is judged
        finally:
            self._watch.end(watched)
