"""Redis loses its state, and a client comes back before any node has noticed that."""

from cluster_pool import Connection, History, Timing
from cluster_pool.testing import FAST, FakeWebSocket
from tests.clusters import PATIENCE, Backend, Pool, connection_of
from tests.support import async_test

ROOMS = {"room*": History()}
UNHURRIED = Timing(lease=60.0, heartbeat=20.0)
"""So that no heartbeat comes meanwhile."""


def lose_state(backend: Backend) -> None:
    """Every key is gone, and no link was lost: a FLUSHALL."""
    with backend.sync_client() as client:
        for key in list(backend.keys()):
            client.delete(key)


async def comes(pool: Pool, id: str) -> bool | None:
    """Have a connection come and join; tells what it is told in its home, and the same there."""
    connection = Connection(id, "room", FakeWebSocket(), user="u")
    await pool.new_connection(connection, timeout=PATIENCE)
    assert await connection.join("room-2") is connection.recovered
    return connection.recovered


@async_test
async def test_one_that_may_have_been_there_is_told(backend: Backend) -> None:
    """Its position is lost with the rest: it must not be taken for a newcomer."""
    timing = FAST if backend.clustered else UNHURRIED  # a claim there may find out by itself
    async with backend.pools(2, history=ROOMS, timing=timing) as (one, two):
        await two.host("room", "bob")
        alice = connection_of(await one.host("room", "alice", user="u"))
        assert await alice.join("room-2") is None
        lose_state(backend)
        await one.broadcast_message("room", "missed")
        assert await comes(two, "alice") is False


@async_test
async def test_newcomers_of_a_new_namespace_are_told_nothing(backend: Backend) -> None:
    """Its history has begun just now as well, but nothing was lost."""
    async with backend.pools(1, history=ROOMS, timing=UNHURRIED) as (one,):
        assert await comes(one, "alice") is None
        assert await comes(one, "bob") is None
