"""A process that holds no connections, and sends through a Publisher.

Run as ``python -m tools.chaos.outside REDIS NAME``; see :mod:`tools.chaos.node`.
"""

import asyncio
import sys
from typing import Any

from cluster_pool import ClusterPoolError, Publisher
from tools.chaos.caller import Caller
from tools.chaos.node import held, loop_factory, quiet, tell_left_over
from tools.chaos.streams import SparseStream
from tools.harness.obeying import answer, obey_object

PROBE = 0.2
"""Seconds between two looks at whether it reaches Redis."""


class Commands:
    """What it can be asked to do."""

    def __init__(self, publisher: Publisher, name: str) -> None:
        self._publisher = publisher
        self._caller = Caller(publisher, name)
        self._sparse = SparseStream(self._caller, name)
        self._ready = False
        self._probing = asyncio.create_task(self._probe())

    async def _probe(self) -> None:
        while True:
            try:
                await self._publisher.nodes(timeout=1.0)
                self._ready = True
            except ClusterPoolError:
                self._ready = False
            await asyncio.sleep(PROBE)

    async def begin(
        self,
        targets: list[tuple[str, str]],
        rate: float,
        namespaces: list[str],
        sparse_rate: float,
    ) -> None:
        """Begin the stream over ``namespaces``; the dense one is for nodes."""
        if namespaces:
            self._sparse.namespaces = namespaces
            self._sparse.begin(sparse_rate)

    async def end(self, namespaces: list[str]) -> dict[str, int]:
        """End it."""
        await self._sparse.end()
        await self._caller.finish()
        return {}

    async def state(self) -> list[Any]:
        """Whether it reaches Redis."""
        return [self._ready]

    async def figures(self) -> dict[str, Any]:
        """What this process holds, and how many of its calls are watched."""
        pending = self._publisher._parts.backplane.outbound.pending
        return {**held(0), "pending": pending, "watched": self._caller.watched}

    async def _stop(self) -> None:
        """Look no more."""
        self._probing.cancel()
        await asyncio.gather(self._probing, return_exceptions=True)
        await self._sparse.end()
        await self._caller.finish()
        await self._caller.stop()


async def main(redis: str, name: str) -> None:
    """Run until standard input ends."""
    quiet()
    async with Publisher(redis) as publisher:
        answer(0)
        commands = Commands(publisher, name)
        await obey_object(commands)
        await publisher.stop()
        await commands._stop()
    tell_left_over()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(*sys.argv[1:]))
