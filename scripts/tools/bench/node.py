"""A node as people run it: the pool and the server of ``cluster-pool serve``, told what to send.

Run as ``python -m tools.bench.node REDIS NODE-ID LOOP GATE``.
"""

import asyncio
import cProfile
import gc
import sys
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from cluster_pool import ClusterPool, Connection, Presence, SendResult
from cluster_pool.local.outbox import begin_close
from cluster_pool.server.disconnect_queue import DisconnectQueue
from tools.bench.gate import Opened
from tools.bench.payloads import member_id, payload
from tools.bench.sender import Sender
from tools.bench.turns import Turns
from tools.harness.internals import NodeServer, loop_factory, settle_collector
from tools.harness.obeying import answer, obey_object
from tools.harness.silent import join

NAMESPACE = "bench"
GATE_TIMEOUT = 10.0
JOIN_TIMEOUT = 60.0
STRIDE = 7
"""Between the first rooms of two members that follow each other."""
TOGETHER = 100
"""Members whose first joins begin in one turn of the loop."""


def room(number: int, rooms: int) -> str:
    """The name of one of the rooms."""
    return f"room:{number % rooms}"


async def _join_each(member: Connection, names: Sequence[str]) -> None:
    for name in names:
        await member.join(name, timeout=JOIN_TIMEOUT)


class Commands(Sender):
    """The commands of this node."""

    def __init__(self, pool: ClusterPool, gate: Opened) -> None:
        super().__init__(self._broadcast_all, self._send_each, gate)
        self._pool = pool
        self._profile: cProfile.Profile | None = None
        self._held: list[Connection] = []
        self._turns = Turns()
        self._following: asyncio.Task[None] | None = None
        self._presence: Presence
        self._changes = 0

    async def _broadcast_all(self, messages: Sequence[str]) -> int:
        publish = self._pool.broadcast_message
        if len(messages) == 1:
            return int(not await publish(NAMESPACE, messages[0]))
        heard = await asyncio.gather(*[publish(NAMESPACE, one) for one in messages])
        return heard.count(0)

    async def _send_each(self, ids: Sequence[str], messages: Sequence[str]) -> int:
        send = self._pool.send_nowait
        sent = [send(NAMESPACE, id, one) for id, one in zip(ids, messages, strict=True)]
        results = [await result for result in sent]
        return sum(not one for one in results)

    async def gathered(self) -> dict[str, int]:
        """As :meth:`targeted`, by a call of ``send`` for each message and a gather of all."""

        async def gather(messages: Sequence[str]) -> int:
            send = self._pool.send
            sent = [send(NAMESPACE, *one) for one in zip(self._ids, messages, strict=True)]
            return sum(not one for one in await asyncio.gather(*sent))

        return await self._send(gather)

    async def one_at_a_time(self, count: int, first: int, pause: float) -> dict[str, Any]:
        """Single sends to the first known id with a pause before each; their times."""
        id = self._ids[0]
        begun, answered, unrouted = [], [], 0
        for number in range(first, first + count):
            if pause:
                await asyncio.sleep(pause)
            message = payload(number, id).decode()
            begun.append(time.monotonic_ns())
            result = await self._pool.send(NAMESPACE, id, message)
            answered.append(time.monotonic_ns())
            unrouted += result is not SendResult.ROUTED
            if not await self._gate.wait(GATE_TIMEOUT):
                break
        return {"begun": begun, "answered": answered, "unrouted": unrouted}

    async def join(self, count: int) -> float:
        """Members without a socket; gives the seconds it took."""
        ids = [member_id(-2 - index) for index in range(count)]
        started = time.monotonic()
        self._held = await join(self._pool, NAMESPACE, ids, lambda code, reason: None)
        return time.monotonic() - started

    async def join_more(self, count: int) -> None:
        """As :meth:`join`, and those that joined before stay."""
        ids = [member_id(-2 - len(self._held) - index) for index in range(count)]
        self._held += await join(self._pool, NAMESPACE, ids, lambda code, reason: None)

    async def inform(self) -> None:
        """Each of these gets an info of 40 bytes."""
        for at in range(0, len(self._held), TOGETHER):
            some = enumerate(self._held[at : at + TOGETHER], at)
            told = [one.update_info({"name": f"{number:029}"}) for number, one in some]
            await asyncio.gather(*told)

    async def watch_members(self) -> float:
        """Watch the members from now on; gives the seconds until all were read."""
        started = time.monotonic()
        entered = asyncio.get_running_loop().create_future()

        async def follow() -> None:
            async with self._pool.presence(NAMESPACE) as presence:
                entered.set_result(presence)
                async for _ in presence:
                    self._changes += 1

        self._following = asyncio.create_task(follow())
        self._presence = await entered
        return time.monotonic() - started

    async def watched(self, members: int) -> dict[str, int]:
        """The members that the watcher has, and the changes that it was given, once it has them."""
        async with asyncio.timeout(JOIN_TIMEOUT):
            while len(self._presence.members) < members:  # noqa: ASYNC110  # nothing tells it
                await asyncio.sleep(0.01)
        return {"members": len(self._presence.members), "changes": self._changes}

    async def join_rooms(self, rooms: int, first: int, each: int) -> float:
        """Each of these joins some of the rooms, all of them at once; gives the seconds it took."""
        started = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for at, member in enumerate(self._held):
                names = [room(at * STRIDE + first + number, rooms) for number in range(each)]
                group.create_task(_join_each(member, names))
                if at % TOGETHER == TOGETHER - 1:
                    await asyncio.sleep(0)
        return time.monotonic() - started

    async def counts(self, rooms: int) -> list[int]:
        """How many members each of the rooms has."""
        return [await self._pool.count(room(number, rooms)) for number in range(rooms)]

    async def go(self) -> float:
        """All of these are closed at once, as a lost network does; gives the seconds until no
        membership is left."""
        started = time.monotonic()
        ends = DisconnectQueue()
        for member in self._held:
            ends.add(partial(begin_close, member, 1001, ""))
        self._held = []
        while self._pool.statistics()["namespaces"]:  # noqa: ASYNC110  # nothing tells it
            await asyncio.sleep(0.01)
        return time.monotonic() - started

    async def count(self) -> int:
        """How many members the cluster has."""
        return await self._pool.count(NAMESPACE)

    async def longest_turn(self) -> float:
        """Seconds of CPU of the longest turn since the last call; see :class:`.Turns`."""
        return await self._turns.longest()

    async def collect(self) -> None:
        """Collect garbage, so that memory is what is held."""
        gc.collect()

    async def profile(self, path: str = "") -> None:
        """Begin to profile; with a path, end and write what was found."""
        if self._profile is None:
            self._profile = cProfile.Profile()
            self._profile.enable()
        else:
            self._profile.disable()
            self._profile.dump_stats(path)
            self._profile = None


async def main(redis: str, node_id: str, gate: int) -> None:
    """Run the node until standard input ends."""
    async with ClusterPool(redis, node_id=node_id) as pool:
        server = NodeServer(pool, port=0)
        await server.start()
        await pool.wait_ready()
        settle_collector()
        commands = Commands(pool, Opened(gate))
        answer({"port": server.port})
        await obey_object(commands)
        await server.stop()


if __name__ == "__main__":
    _, redis_url, node_name, loop_name, gate_fd = sys.argv
    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        runner.run(main(redis_url, node_name, int(gate_fd)))
