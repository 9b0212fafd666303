"""Looks once a second at connections that need it: closing, stuck, with a handler, or idle.

A connection that is only open costs nothing here.
"""

import asyncio
import contextlib
from contextvars import Context

from cluster_pool.core.closing import IDLE
from cluster_pool.local import closing
from cluster_pool.local.handlers import report_hang
from cluster_pool.local.outbox import begin_close, close_slow, is_stuck
from cluster_pool.local.pinging import is_awaited
from cluster_pool.local.state import CLOSED, ConnectionState

PERIOD = 1.0
HURRIED_PERIOD = 0.02
"""The period while the pool waits for its last connections."""
YIELD_EVERY = 1000


def look(connection: ConnectionState, now: float) -> bool:
    """Apply the deadlines of a connection. False when there is nothing left to watch."""
    report_hang(connection, now)
    if connection._state is not CLOSED and connection._transport.is_closed():
        closing.finish(connection)
    if connection._state is CLOSED:
        return bool(connection._busy_since)
    if connection.closed:
        if closing.is_late(connection, now):
            closing.cut(connection)
        return not closing.is_gone(connection)
    if is_stuck(connection, now):
        close_slow(connection)
        connection._transport.abort()
    if closing.is_idle(connection, now):
        begin_close(connection, IDLE, "idle")
    connection._watched = (
        is_awaited(connection, now)
        or connection.idle_timeout is not None
        or bool(connection._stuck_since)
        or bool(connection._busy_since)
        or connection.closed
    )
    return connection._watched


class Sweeper:
    """Holds the watched connections; its task runs only while there are any."""

    def __init__(self) -> None:
        self._watched: dict[ConnectionState, None] = {}
        self._task: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self.waiting = (0, 0)
        """By the last look: the outboxes for which the kernel takes no more, and their bytes."""

    def watch(self, connection: ConnectionState) -> None:
        """Look at ``connection`` from now on, until :func:`look` returns False."""
        self._watched[connection] = None
        if self._task is None:
            # In a context of its own: the caller's holds that connection's endpoint.
            self._task = asyncio.create_task(
                self._run(), name="cluster_pool sweep", context=Context()
            )

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
                elif any(one.closed and not closing.is_gone(one) for one in self._watched):
                    await asyncio.sleep(HURRIED_PERIOD)
                else:
                    return
                count = size = 0
                for at, connection in enumerate(list(self._watched)):
                    if not look(connection, loop.time()):
                        self._watched.pop(connection, None)
                    elif connection._stuck_since and not connection.closed:
                        count, size = count + 1, size + connection._writer.buffered()
                    if at % YIELD_EVERY == YIELD_EVERY - 1:
                        await asyncio.sleep(0)
                self.waiting = count, size
        finally:
            self.waiting = (0, 0)
            self._task = None
