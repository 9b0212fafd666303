"""Connections of users that come to houses and leave them all the time, by tokens that are revoked.

Run inside a node. A connection that hears a message for another user, or one twice, tells it at
once; all else is compared when all is quiet, by :mod:`tools.chaos.people`.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cluster_pool import (
    AuthenticationError,
    ClusterPool,
    ClusterPoolError,
    Connection,
    Identity,
    MembershipLimitError,
)
from tools.chaos.arrivals import Arrivals
from tools.chaos.caller import TIMEOUT
from tools.chaos.roaming import info_of
from tools.chaos.streams import Ticker
from tools.chaos.watch import Watch
from tools.harness.internals import held_in, user_members
from tools.harness.obeying import tell

USERS, HOUSES, SEATS = 16, 6, 16
"""Users; namespaces that are their homes; ids there, which all take from one another."""
MOST = 4
"""Connections of a user, at most."""
CLAIMS = 2
"""Claims of an accept, one after another: of its user and of its home."""
LOOK = 0.05
TOKEN_AGE = 5.0
"""Seconds after which a user comes by another token."""
KICKED = 4001
ENTER, LEAVE, SEND, INFORM = 0.55, 0.12, 0.14, 0.15
"""The parts of steps; INFORM replaces an info. Of the rest, one in two closes a user and one in two
revokes a token."""

Row = tuple[str, str, str, str, str, str]
"""A standing connection: house, id, node, user, info as JSON, token."""


def user_of(at: int) -> str:
    """The user of this number."""
    return f"user-{at}"


def house_of(at: int) -> str:
    """The house of this number."""
    return f"house-{at}"


ALL_USERS = [user_of(at) for at in range(USERS)]
ALL_HOUSES = [house_of(at) for at in range(HOUSES)]


@dataclass(eq=False)
class Visit:
    """A connection of a user, from its accept to its end."""

    user: str
    token: str
    over: asyncio.Event = field(default_factory=asyncio.Event)
    heard: set[str] = field(default_factory=set)

    def hear(self, text: str | bytes) -> None:
        """A message is ``USER SENDER NUMBER``."""
        text = str(text)
        if text in self.heard or text.split(" ")[0] != self.user:
            tell("logged", [f"a connection of {self.user} heard {text}", str(len(self.heard))])
        self.heard.add(text)


class Visits(Ticker):
    """The steps of one node's users."""

    def __init__(self, pool: ClusterPool) -> None:
        super().__init__(self._one)
        self._pool = pool
        self._random = random.Random(f"visits {pool.node_id}")
        self._number = 0
        self.arrivals = Arrivals(pool, house_of(0))
        self._standing: dict[Connection, Visit] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watch = Watch(lambda about, seconds: tell("logged", [about, f"took {seconds:.1f} s"]))
        self._watching = asyncio.create_task(self._watch.run())

    # -- what the runner asks ----------------------------------------------------------------

    async def settle(self) -> None:
        """Take no more steps, and wait until each of them is answered, or overdue and cancelled."""
        await self.end()
        while self._watch.open and self._tasks:
            await asyncio.wait(self._tasks, timeout=LOOK)

    async def stop(self) -> None:
        """Everybody has gone."""
        await self.settle()
        for visit in self._standing.values():
            visit.over.set()
        self._watching.cancel()
        await self.arrivals.stop()
        await asyncio.gather(self._watching, *self._tasks, return_exceptions=True)

    @property
    def standing(self) -> int:
        """How many connections stand; each has a task."""
        return len(self._standing)

    def held(self) -> list[Row]:
        """The standing connections of users."""
        node = self._pool.node_id
        return [
            (house, id, node, one.user or "", info_of(one.info), one.identity.token_id or "")
            for house in ALL_HOUSES
            for id in held_in(self._pool, house)
            if (one := self._pool.get_connection(house, id)) is not None and one.identity
        ]

    def held_of_users(self) -> list[tuple[str, str]]:
        """The user and the id of each membership in a namespace of a user."""
        return [(user, id) for user in ALL_USERS for id in user_members(self._pool, user)]

    def heard(self, text: str) -> list[tuple[str, str]]:
        """The house and the id of each connection that has heard a message."""
        return [
            (one.namespace, one.id) for one, visit in self._standing.items() if text in visit.heard
        ]

    async def attempt(self, user: str, token: str) -> str:
        """Whether a connection of a user is accepted by a token; it leaves at once."""
        visit = Visit(user, token)
        visit.over.set()
        try:
            await self._visit(visit, house_of(0), "attempt")
        except MembershipLimitError:
            return "limit"
        except AuthenticationError:
            return "revoked"
        except ClusterPoolError as error:
            return repr(error)
        return "accepted"

    # -- steps -------------------------------------------------------------------------------

    def _one(self) -> None:
        chance, user = self._random.random(), self._random.choice(ALL_USERS)
        if chance < ENTER:
            self._enter(user)
        elif chance < ENTER + LEAVE:
            if self._standing:
                self._random.choice([*self._standing.values()]).over.set()
        elif chance < ENTER + LEAVE + SEND:
            self._number += 1
            text = f"{user} {self._pool.node_id} {self._number}"
            self._begin("a message to a user", lambda: self._send(user, text))
        elif chance < ENTER + LEAVE + SEND + INFORM:
            if self._standing:
                one, info = self._random.choice([*self._standing]), self._info()
                self._begin("an info", lambda: one.update_info(info))
        elif self._random.random() < 0.5:
            self._begin("a kick", lambda: self._kick(user))
        else:
            self._begin("a revocation", lambda: self._revoke(_token(user)))

    def _info(self) -> dict[str, int] | None:
        """An info that no other has, or none."""
        self._number += 1
        return self._random.choice([None, {"number": self._number}])

    def _enter(self, user: str) -> None:
        house = self._random.choice(ALL_HOUSES)
        visit, id = Visit(user, _token(user)), f"seat-{self._random.randrange(SEATS)}"
        task = asyncio.create_task(self._tried(visit, house, id))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tried(self, visit: Visit, house: str, id: str) -> None:
        # One is refused, or released later: the registry is what is judged.
        with contextlib.suppress(ClusterPoolError):
            await self._visit(visit, house, id)

    async def _visit(self, visit: Visit, house: str, id: str) -> None:
        """Stand until it is over, or a pool closes the connection."""

        def close(code: int, reason: str) -> None:
            visit.over.set()

        about = f"{visit.user} into {house} at {self._pool.node_id}"
        watched = self._watch.begin(about, CLAIMS * TIMEOUT)
        identity = Identity(user=visit.user, token_id=visit.token)
        try:
            accepting = self._pool.accept(
                (visit.hear, close), namespace=house, id=id, identity=identity, info=self._info()
            )
            async with accepting as connection:
                self._watch.end(watched)
                self._standing[connection] = visit
                try:
                    await visit.over.wait()
                finally:
                    self._standing.pop(connection, None)
        finally:
            self._watch.end(watched)

    async def _send(self, user: str, text: str) -> None:
        """Send, and tell how many messages of it gaps may name."""
        tell("unkept", ["", MOST])
        told = await self._pool.send_user(user, text, confirm=True)
        tell("unkept", ["", told.routed + told.undelivered + told.timed_out - MOST])

    async def _kick(self, user: str) -> None:
        """Close all of a user; a gap may name that."""
        tell("unkept", [f"~user:{user}", 1])
        await self._pool.close_user(user, KICKED, "kicked")

    async def _revoke(self, token: str) -> None:
        """Once a node has read it, it counts, whatever Redis loses."""
        if await self._pool.revoke(token):
            tell("revoked", [token])

    def _begin(self, about: str, take: Callable[[], Awaitable[object]]) -> None:
        task = asyncio.create_task(self._step(f"{about} at {self._pool.node_id}", take))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _step(self, about: str, take: Callable[[], Awaitable[object]]) -> None:
        watched = self._watch.begin(about, TIMEOUT)
        try:
            with contextlib.suppress(ClusterPoolError):
                await take()
        finally:
            self._watch.end(watched)


def _token(user: str) -> str:
    """The token by which a user comes now, to any node."""
    return f"{user}/{time.time() // TOKEN_AGE:.0f}"
