"""One look a second at the connections that need one: closing, stuck, handling, or idle too long.

A connection that is just open costs nothing here.
"""

import asyncio
import contextlib

from cluster_pool.local.connection import Connection

PERIOD = 1.0
HURRIED_PERIOD = 0.02
"""While the pool waits for its last connections."""
YIELD_EVERY = 1000


class Sweeper:
    """Holds the watched connections; its task runs only while there are any."""

    def __init__(self) -> None:
        self._watched: dict[Connection, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()

    def watch(self, connection: Connection) -> None:
        """Look at ``connection`` from now on until it says that there is nothing left."""
        self._watched[connection] = None
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="cluster_pool sweep")

    async def stop(self) -> None:
        """Look until every closing connection has ended, at its deadline at the latest."""
        self._hurry.set()
        if self._task is not None:
            await self._task
        self._hurry.clear()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._watched:
                if not self._hurry.is_set():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(PERIOD):
                            await self._hurry.wait()
                elif any(one.closed and not one.gone for one in self._watched):
                    await asyncio.sleep(HURRIED_PERIOD)
                else:
                    return
                for at, connection in enumerate(list(self._watched)):
                    if not connection.sweep(loop.time()):
                        self._watched.pop(connection, None)
                    if at % YIELD_EVERY == YIELD_EVERY - 1:
                        await asyncio.sleep(0)
        finally:
            self._task = None
