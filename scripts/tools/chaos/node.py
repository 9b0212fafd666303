"""A node as people run it, that also sends numbered messages and tells what became of each.

Run as ``python -m tools.chaos.node REDIS NODE-ID``. Every call is told when it begins and when it
ends, so that the books are right even for a node that is killed.
"""

import asyncio
import contextlib
import gc
import logging
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cluster_pool import ClusterPool, ClusterPoolError, Connection, Gap
from cluster_pool.server.node import NodeServer
from tools.chaos.books import BROADCAST
from tools.chaos.caller import Caller
from tools.chaos.streams import DenseStream, SparseStream
from tools.harness.obeying import answer, obey_object, tell

STATM = Path("/proc/self/statm")
AT_ONCE = 50
"""Namespaces that are read at the same time."""


class Commands:
    """What this node can be asked to do."""

    def __init__(self, pool: ClusterPool) -> None:
        self._pool = pool
        self._caller = Caller(pool, pool.node_id)
        self._dense = DenseStream(self._caller, pool.node_id)
        self._sparse = SparseStream(self._caller, pool.node_id)

    async def begin(
        self,
        targets: list[tuple[str, str]],
        rate: float,
        namespaces: list[str],
        sparse_rate: float,
    ) -> None:
        """Begin the streams: the dense one to ``targets``, the sparse one over ``namespaces``."""
        self._dense.targets = targets
        self._dense.begin(rate)
        if namespaces:
            self._sparse.namespaces = namespaces
            self._sparse.begin(sparse_rate)

    async def end(self, namespaces: list[str]) -> dict[str, int]:
        """End the streams; gives the number of a last broadcast to each of these namespaces."""
        await self._dense.end()
        await self._sparse.end()
        await self._caller.finish()
        return {name: await self._caller.call(BROADCAST, name) for name in namespaces}

    async def state(self) -> list[Any]:
        """Whether it is ready, and as what."""
        statistics = self._pool.statistics()
        return [statistics[name] for name in ("ready", "generation", "incarnation")]

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
        return {**statistics, **held(statistics["connections"]), "watched": self._caller.watched}

    async def _stop(self) -> None:
        """End the streams; every call must be answered, though the node has stopped."""
        await self._dense.end()
        await self._sparse.end()
        await self._caller.finish()
        await self._caller.stop()


def held(connections: int) -> dict[str, Any]:
    """What this process holds beside so many connections; tasks also by what they run."""
    gc.collect()
    tasks = Counter(getattr(one.get_coro(), "__qualname__", "?") for one in asyncio.all_tasks())
    return {
        "memory": int(STATM.read_text().split()[1]) * resource.getpagesize(),
        "tasks": tasks.total() - connections,
        "running": tasks,
        "descriptors": len(os.listdir("/proc/self/fd")) - connections,
    }


async def serve_one(pool: ClusterPool, connection: Connection) -> None:
    """Listen to a client until it has gone, and tell when nobody is left in its namespace."""
    async for _ in connection:
        pass

    def last_one() -> None:
        tell("emptied", [connection.namespace, time.monotonic()])

    with contextlib.suppress(ClusterPoolError):
        await pool.remove_connection(connection, last_one)


def tell_left_over() -> None:
    """Of a program that has stopped: which tasks go on."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    if left:
        tell("left", sorted(one.get_name() for one in left))


class Telling(logging.Handler):
    """Tells what is logged."""

    def emit(self, record: logging.LogRecord) -> None:
        """Tell the line, and the error that came with it."""
        error = record.exc_info[1] if record.exc_info else None
        tell("logged", [record.getMessage(), repr(error)])


def quiet() -> None:
    """Faults are no news here; what goes wrong by itself is, and is told and printed."""
    logging.captureWarnings(True)
    errors, warnings = logging.ERROR, logging.WARNING
    levels = {"cluster_pool": errors, "asyncio": errors, "py.warnings": warnings}
    for name, level in levels.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.addHandler(Telling())
        logger.addHandler(logging.StreamHandler())


async def main(redis: str, node_id: str) -> None:
    """Run the node until standard input ends."""
    quiet()

    def missed(gap: Gap) -> None:
        tell("gap", [gap.namespaces, gap.exact])

    pool = ClusterPool(redis, node_id=node_id)
    pool.on("gap", missed)
    async with pool:
        server = NodeServer(pool, port=0, app=serve_one)
        await server.start()
        await pool.wait_ready()
        answer(server.port)
        commands = Commands(pool)
        await obey_object(commands)
        await server.stop()
        await commands._stop()
    tell_left_over()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """As ``cluster-pool serve``: uvloop when it is installed."""
    if find_spec("uvloop") is not None:
        import uvloop

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
        return factory
    return asyncio.new_event_loop


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(*sys.argv[1:]))
