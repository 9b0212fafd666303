"""A node with members of many namespaces and no WebSocket, told what to send.

Run as ``python -m tools.bench.shard_node REDIS NODE-ID LOOP``.
"""

import asyncio
import gc
import sys
import time
from collections.abc import Iterator, Sequence

from cluster_pool import ClusterPool, Connection, SendResult
from tools.bench.payloads import SIZE, member_id
from tools.bench.turns import Turns
from tools.harness.internals import is_whole, loop_factory, settle_collector
from tools.harness.obeying import answer, obey_object

TOGETHER = 500
"""Joins under way at once."""
TIMEOUT = 60.0
MESSAGE = "." * SIZE
LOOK = 0.01
STEADY = 200
"""Looks in a row that must find all registered: a map of slots is read within that time."""


def namespaces(count: int, first: int = 0) -> Iterator[str]:
    """Their names, which the slots of a cluster share evenly."""
    return (f"room-{at}" for at in range(first, first + count))


class Commands:
    """Everything that this node can be asked to do."""

    def __init__(self, pool: ClusterPool) -> None:
        self._pool = pool
        self._turns = Turns()
        self._held: list[Connection] = []
        self._received = 0
        self._generations = 0

    # -- members ---------------------------------------------------------------------------

    async def join(self, count: int, first: int = 0) -> float:
        """A member in each of so many namespaces; gives the seconds it took."""
        id = member_id(0)
        return await self._join([(id, name) for name in namespaces(count, first)])

    async def join_more(self, count: int, members: int) -> float:
        """More members in the same namespaces."""
        ids = [member_id(at) for at in range(1, members + 1)]
        return await self._join([(id, name) for id in ids for name in namespaces(count)])

    async def _join(self, names: Sequence[tuple[str, str]]) -> float:
        started = time.monotonic()
        transport = (self._receive, _closed)
        new = [Connection(id, namespace, transport) for id, namespace in names]
        for at in range(0, len(new), TOGETHER):
            join = self._pool.new_connection
            await asyncio.gather(*[join(one, timeout=TIMEOUT) for one in new[at : at + TOGETHER]])
        self._held += new
        return time.monotonic() - started

    async def part_more(self, count: int, members: int) -> None:
        """Those who joined last leave."""
        held, self._held = self._held[-count * members :], self._held[: -count * members]
        for at in range(0, len(held), TOGETHER):
            remove = self._pool.remove_connection
            await asyncio.gather(*[remove(one) for one in held[at : at + TOGETHER]])

    def _receive(self, message: str | bytes) -> None:
        self._received += 1

    async def received(self, total: int) -> int:
        """How many messages have come since the last call, once it is ``total`` or too late."""
        deadline = time.monotonic() + TIMEOUT
        while self._received < total and time.monotonic() < deadline:  # noqa: ASYNC110  # counted
            await asyncio.sleep(LOOK)
        received, self._received = self._received, 0
        return received

    # -- sending ---------------------------------------------------------------------------

    async def broadcast(self, count: int, rounds: int, burst: int) -> int:
        """Broadcast to each namespace; all of a round at once. Gives how many nobody heard."""
        publish, unheard = self._pool.broadcast_message, 0
        for _ in range(rounds):
            heard = await asyncio.gather(
                *[publish(name, MESSAGE) for name in namespaces(count) for _ in range(burst)]
            )
            unheard += heard.count(0)
        return unheard

    async def targeted(self, count: int, rounds: int, burst: int) -> int:
        """The same to one member of each namespace."""
        send, id, unheard = self._pool.send_nowait, member_id(0), 0
        for _ in range(rounds):
            sent = [send(name, id, MESSAGE) for name in namespaces(count) for _ in range(burst)]
            results = [await one for one in sent]
            unheard += len(results) - results.count(SendResult.ROUTED)
        return unheard

    # -- what it is ------------------------------------------------------------------------

    async def longest_turn(self) -> float:
        """Seconds of CPU of the longest turn since the last call; see :class:`.Turns`."""
        return await self._turns.longest()

    async def mark(self) -> None:
        """Count generations of links from here on."""
        self._generations = self._pool.statistics()["generations"]

    async def restored(self, generations: int) -> float:
        """Wait until so many more generations began, and all that is owned has been registered for
        a while; gives since when, on the monotonic clock of this machine."""
        wanted, steady, since = self._generations + generations, 0, 0.0
        while steady < STEADY:
            begun = self._pool.statistics()["generations"] >= wanted
            steady = steady + 1 if begun and is_whole(self._pool) else 0
            if steady == 1:
                since = time.monotonic()
            await asyncio.sleep(LOOK)
        return since

    async def collect(self) -> None:
        """Collect garbage, so that memory is what is held."""
        gc.collect()


def _closed(code: int, reason: str) -> None:
    """A member is closed when this node ends."""


async def main(redis: str, node_id: str) -> None:
    """Run the node until standard input ends."""
    async with ClusterPool(redis, node_id=node_id) as pool:
        await pool.wait_ready()
        settle_collector()
        answer()
        await obey_object(Commands(pool))


if __name__ == "__main__":
    _, redis_url, node_name, loop_name = sys.argv
    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        runner.run(main(redis_url, node_name))
