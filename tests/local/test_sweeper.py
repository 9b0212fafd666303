"""The periodic check of connections that need one."""

import asyncio
import contextvars
import weakref

from cluster_pool import (
    Connection,
    ConnectionsPool,
)
from cluster_pool.local.sweeper import Sweeper
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test, eventually


@async_test
async def test_an_idle_connection_is_closed_with_4408() -> None:
    """Only the one that asked for the limit, and only if its client was silent."""
    async with ConnectionsPool() as pool:
        idle = Connection("idle", "n", FakeWebSocket(), idle_timeout=0.5)
        other = Connection("other", "n", FakeWebSocket())
        await pool.new_connection(idle)
        await pool.new_connection(other)
        assert (await idle.websocket.wait_closed())[0] == 4408
        assert not other.closed


@async_test
async def test_the_sweep_keeps_nothing_of_the_task_that_began_it() -> None:
    """It runs as long as any connection needs it, and that may be for days."""
    held: contextvars.ContextVar[FakeWebSocket | None] = contextvars.ContextVar("held")
    sweeper = Sweeper()
    stays = Connection("stays", "n", FakeWebSocket(), idle_timeout=60)

    async def endpoint() -> weakref.ref[FakeWebSocket]:
        mine = FakeWebSocket()
        held.set(mine)
        sweeper.watch(stays)
        return weakref.ref(mine)

    kept = await asyncio.create_task(endpoint())
    await eventually(lambda: kept() is None, 3)
    await sweeper.stop()
