"""The periodic check of connections that need one."""

from cluster_pool import (
    Connection,
    ConnectionsPool,
)
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


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
