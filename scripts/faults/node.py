"""A node as people run it, that also sends numbered messages and tells what became of each.

Run as ``python -m faults.node REDIS NODE-ID``. Every call is told when it begins and when it ends,
so that the books are right even for a node that is killed.
"""

import asyncio
import gc
import logging
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPool,
    ClusterPoolError,
    Gap,
)
from cluster_pool.server.node import NodeServer
from faults.books import BROADCAST, CONFIRM, SEND
from faults.programs import obey, tell

MIX = (SEND, SEND, SEND, SEND, SEND, CONFIRM, CONFIRM, BROADCAST, BROADCAST, BROADCAST)
STATM = Path("/proc/self/statm")
LATE = 0.1
"""Seconds of its schedule that a stream which was held up makes good for; the rest it lets go."""


class Stream:
    """Numbered messages of every kind, at a steady rate, to members and namespaces at random."""

    def __init__(self, pool: ClusterPool, seed: str) -> None:
        self._pool = pool
        self._random = random.Random(seed)
        self._number = 0
        self._targets: list[tuple[str, str]] = []
        self._pause = 1.0
        self._ticking: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[int]] = set()

    def begin(self, targets: list[tuple[str, str]], rate: float) -> None:
        """Send ``rate`` messages a second from now on."""
        self._targets, self._pause = targets, 1 / rate
        if self._ticking is None:
            self._ticking = asyncio.create_task(self._tick())

    async def end(self) -> None:
        """Send no more, and wait until every call has ended."""
        if self._ticking is not None:
            self._ticking.cancel()
            await asyncio.gather(self._ticking, return_exceptions=True)
            self._ticking = None
        await asyncio.gather(*self._calls)

    async def _tick(self) -> None:
        now = asyncio.get_running_loop().time
        due = now()
        while True:
            namespace, id = self._random.choice(self._targets)
            kind = self._random.choice(MIX)
            self._call_soon(kind, namespace, "" if kind == BROADCAST else id)
            due = max(due + self._pause, now() - LATE)
            await asyncio.sleep(max(0.0, due - now()))

    def _call_soon(self, kind: str, namespace: str, id: str) -> None:
        """Calls begin in the order of these calls, as tasks begin in the order they are made."""
        task = asyncio.create_task(self.call(kind, namespace, id))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def call(self, kind: str, namespace: str, id: str) -> int:
        """Send one message; gives its number."""
        self._number += 1
        number = self._number
        tell("begun", [kind, number, namespace, id, time.monotonic()])
        outcome = await self._outcome(kind, namespace, id, f"{self._pool.node_id} {number}")
        tell("ended", [number, time.monotonic(), outcome])
        return number

    async def _outcome(self, kind: str, namespace: str, id: str, message: str) -> str:
        try:
            if kind == BROADCAST:
                nodes = await self._pool.broadcast_message(namespace, message)
                return "heard" if nodes else "unheard"
            result = await self._pool.send(namespace, id, message, confirm=kind == CONFIRM)
            return result.value
        except BackplaneUnavailableError as error:
            return "unknown" if error.maybe_executed else "not_sent"
        except ClusterPoolError:
            return "not_sent"


class Commands:
    """What this node can be asked to do."""

    def __init__(self, pool: ClusterPool) -> None:
        self._pool = pool
        self._stream = Stream(pool, pool.node_id)

    async def begin(self, targets: list[tuple[str, str]], rate: float) -> None:
        """Begin the stream."""
        self._stream.begin(targets, rate)

    async def end(self, namespaces: list[str]) -> dict[str, int]:
        """End the stream; gives the number of a last broadcast to each namespace."""
        await self._stream.end()
        return {name: await self._stream.call(BROADCAST, name, "") for name in namespaces}

    async def state(self) -> list[Any]:
        """Whether it is ready, and as what."""
        statistics = self._pool.statistics()
        return [statistics[name] for name in ("ready", "generation", "incarnation")]

    async def registry(self, namespaces: list[str]) -> list[tuple[str, str, str]]:
        """Every member: namespace, id, node."""
        return [
            (namespace, member.id, member.node)
            for namespace in namespaces
            async for member in self._pool.members(namespace)
        ]

    async def figures(self) -> dict[str, Any]:
        """The pool's counters, and what this process holds beside its connections."""
        gc.collect()
        statistics = self._pool.statistics()
        connections = statistics["connections"]
        pages = int(STATM.read_text().split()[1])  # noqa: ASYNC240  # of procfs: never blocks
        return {
            **statistics,
            "memory": pages * resource.getpagesize(),
            "tasks": len(asyncio.all_tasks()) - connections,
            "descriptors": len(os.listdir("/proc/self/fd")) - connections,
        }


async def main(redis: str, node_id: str) -> None:
    """Run the node until standard input ends."""

    logging.getLogger("cluster_pool").setLevel(logging.ERROR)  # faults are no news here

    def missed(gap: Gap) -> None:
        tell("gap", [gap.namespaces, gap.exact])

    pool = ClusterPool(redis, node_id=node_id)
    pool.on("gap", missed)
    async with pool:
        server = NodeServer(pool, port=0)
        await server.start()
        await pool.wait_ready()
        tell("answer", server.port)
        commands = Commands(pool)
        names = ("begin", "end", "state", "registry", "figures")
        await obey({name: getattr(commands, name) for name in names})
        await server.stop()


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
