"""The periodic check of connections that need one."""

import asyncio
import contextvars
import weakref

from cluster_pool import (
    Connection,
    ConnectionsPool,
    Timing,
)
from cluster_pool.local.sweeper import Sweeper
from cluster_pool.testing import FakeWebSocket
from tests.local.test_outbox import StuckWebSocket
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
async def test_outboxes_that_wait_are_counted_with_their_bytes() -> None:
    """By each look; none once the connection has ended."""
    async with ConnectionsPool(timing=Timing(close=0.2)) as pool:
        stuck = Connection("stuck", "n", StuckWebSocket())
        await pool.new_connection(stuck)
        assert pool._table.outboxes() == {"outboxes_waiting": 0, "outbox_bytes": 0}
        for _ in range(2):
            await pool.send("n", "stuck", "x" * 400)
            await asyncio.sleep(0)
        await eventually(lambda: pool._table.outboxes()["outboxes_waiting"] == 1)
        assert pool._table.outboxes()["outbox_bytes"] >= 400
        await pool.close("n", "stuck")
        await eventually(
            lambda: pool._table.outboxes() == {"outboxes_waiting": 0, "outbox_bytes": 0}
        )


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
