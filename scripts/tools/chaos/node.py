"""A node as people run it, that also sends numbered messages and tells what became of each.

Run as ``python -m tools.chaos.node REDIS NODE-ID``. Every call is told when it begins and when it
ends, so that the books are right even for a node that is killed.
"""

import asyncio
import contextlib
import sys
import time
from typing import Any

from cluster_pool import (
    Auth,
    ClusterPool,
    ClusterPoolError,
    Connection,
    Gap,
    Identity,
    Limits,
    Request,
)
from tools.chaos import past
from tools.chaos.books import UNREAD
from tools.chaos.roaming import Roaming, Row, row
from tools.chaos.sending import Sending, quiet, tell_left_over
from tools.chaos.visiting import Visiting
from tools.chaos.visits import MOST
from tools.harness.internals import NodeServer, is_whole, loop_factory
from tools.harness.obeying import answer, obey_object, tell
from tools.harness.silent import join

AT_ONCE = 50
"""Namespaces that are read at the same time."""


class Commands(Sending):
    """The commands of this node."""

    def __init__(self, pool: ClusterPool) -> None:
        super().__init__(pool, pool.node_id)
        self._pool = pool
        self._silent: list[Connection] = []
        self._roaming = Roaming(pool, self._silent)
        self.visiting = Visiting(pool)
        self.stopping = False

    async def hold(self, count: int, crowds: list[str]) -> None:
        """Have so many members of each crowd, to whom nobody sends and whom nothing may close."""

        def closed(code: int, reason: str) -> None:
            if not self.stopping:
                tell("logged", [f"a silent member was closed with {code}", reason])

        ids = [f"{self._pool.node_id}/{at}" for at in range(count)]
        for crowd in crowds:
            self._silent += await join(self._pool, crowd, ids, closed)

    async def roam(self, rooms: list[str], rate: float) -> None:
        """Let those members join rooms and leave them, so often in a second."""
        self._roaming.roam(rooms, rate)

    async def rooms(self) -> list[Row]:
        """Let them stay where they are; gives each that is in a room."""
        await self._roaming.end()
        return self._roaming.held()

    async def watched_rooms(self) -> list[Row]:
        """The members of the rooms that this node watches, as it knows them."""
        return self._roaming.watched()

    async def registered_rooms(self, rooms: list[str]) -> list[Row]:
        """The members of rooms as the registry has them."""
        return [row(room, member) for room in rooms async for member in self._pool.members(room)]

    async def _stop(self) -> None:
        await self._roaming.stop()
        await self.visiting._stop()
        await super()._stop()

    async def state(self) -> list[Any]:
        """Whether all is well, how often it has connected to Redis, and as what it is there now;
        and whether clients are left that never read."""
        statistics = self._pool.statistics()
        known = [statistics[name] for name in ("generations", "incarnation")]
        return [is_whole(self._pool), *known, self._pool.has_namespace(UNREAD)]

    async def registry(self, namespaces: list[str]) -> list[tuple[str, str, str]]:
        """Every member: namespace, id, node; and a "?" where the count is another."""
        found = []
        for at in range(0, len(namespaces), AT_ONCE):
            some = namespaces[at : at + AT_ONCE]
            for members in await asyncio.gather(*[self._members(name) for name in some]):
                found += members
        return found

    async def _members(self, namespace: str) -> list[tuple[str, str, str]]:
        members = [
            (namespace, member.id, member.node) async for member in self._pool.members(namespace)
        ]
        count = await self._pool.count(namespace)
        if count != len(members):
            members.append((namespace, "?", f"count is {count} of {len(members)}"))
        return members

    async def figures(self) -> dict[str, Any]:
        """The pool's counters, and what this process holds beside its connections."""
        statistics = self._pool.statistics()
        visits = self.visiting._held()
        held = self._held(statistics["connections"] - len(self._silent) - visits)
        return {**statistics, **held, "tasks": held["tasks"] - visits}


async def serve_one(pool: ClusterPool, connection: Connection) -> None:
    """Listen to a client until it has gone, and tell when nobody is left in its namespace.

    One with a past is told whether it has recovered that, behind all that it has got of it.
    """
    if past.has_past(connection.namespace):
        await connection.send(f"{past.VERDICT} {connection.recovered}")
    async for _ in connection:
        pass

    def last_one() -> None:
        tell("emptied", [connection.namespace, time.monotonic()])

    with contextlib.suppress(ClusterPoolError):
        await pool.remove_connection(connection, last_one)


def identify(request: Request) -> Identity:
    """The user that a client names, and the id, which nobody else's connection keeps from it."""
    user, id = request.headers.get(past.USER), request.query.get(past.ID)
    return Identity(user=user, id=id, namespaces=["*"])


async def main(redis: str, node_id: str) -> None:
    """Run the node until standard input ends."""
    quiet()

    def missed(gap: Gap) -> None:
        tell("gap", [gap.namespaces, gap.exact])

    limits = Limits(user_connections=MOST)
    pool = ClusterPool(redis, node_id=node_id, limits=limits, history=past.HISTORIES)
    pool.on("gap", missed)
    async with pool:
        server = NodeServer(pool, port=0, app=serve_one, auth=Auth(authenticate=identify))
        await server.start()
        await pool.wait_ready()
        commands = Commands(pool)
        answer(server.port)
        await obey_object(commands, commands.visiting)
        commands.stopping = True
        await server.stop()
        await commands._stop()
    tell_left_over()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(*sys.argv[1:]))
