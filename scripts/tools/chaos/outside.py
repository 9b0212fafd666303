"""A process that holds no connections, and sends through a Publisher.

Run as ``python -m tools.chaos.outside REDIS NAME``; see :mod:`tools.chaos.node`.
"""

import asyncio
import sys
from typing import Any

from cluster_pool import ClusterPoolError, Publisher
from tools.chaos.sending import Sending, quiet, tell_left_over
from tools.harness.internals import loop_factory, pending_of
from tools.harness.obeying import answer, obey_object

PROBE = 0.2
"""Seconds between two looks at whether it reaches Redis."""


class Commands(Sending):
    """The commands of the publisher outside."""

    def __init__(self, publisher: Publisher, name: str) -> None:
        super().__init__(publisher, name)
        self._publisher = publisher
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

    async def state(self) -> list[Any]:
        """Whether it reaches Redis."""
        return [self._ready]

    async def online(self, users: list[str]) -> dict[str, int]:
        """The number of connections of each user."""
        return await self._publisher.online(users)

    async def send_user(self, user: str, text: str) -> int:
        """How many connections of a user have got a message."""
        return (await self._publisher.send_user(user, text, confirm=True)).delivered

    async def close_user(self, user: str, code: int) -> int:
        """How many nodes were told to close the connections of a user."""
        return await self._publisher.close_user(user, code, "kicked")

    async def figures(self) -> dict[str, Any]:
        """The holdings of this process, and its pending calls."""
        return {**self._held(0), "pending": pending_of(self._publisher)}

    async def _stop(self) -> None:
        self._probing.cancel()
        await asyncio.gather(self._probing, return_exceptions=True)
        await super()._stop()


async def main(redis: str, name: str) -> None:
    """Run until standard input ends."""
    quiet()
    async with Publisher(redis) as publisher:
        commands = Commands(publisher, name)
        answer(0)
        await obey_object(commands)
        await publisher.stop()
        await commands._stop()
    tell_left_over()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(main(*sys.argv[1:]))
