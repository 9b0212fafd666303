"""A namespace with a history that is joined again gives what was missed there."""

import asyncio
from typing import Any

from cluster_pool import Connection, History, Limits
from cluster_pool.core.history import Position
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend, Pool
from tests.support import async_test, eventually

ROOM = "room:7"
ROOMS = {"room:*": History(replay_targeted_without_user=True)}


async def member_of_lobby(pool: Pool, id: str) -> tuple[Connection, FakeWebSocket]:
    """A connection with another home."""
    connection = Connection(id, "lobby", websocket := FakeWebSocket())
    await pool.new_connection(connection)
    return connection, websocket


async def join_and_go(pool: Pool, id: str = "alice") -> None:
    """A connection that was a member of the room until its end."""
    connection, _ = await member_of_lobby(pool, id)
    await connection.join(ROOM)
    await connection.close()
    await eventually(lambda: not pool.statistics()["memberships"])


async def stored(pool: Pool, id: str = "alice") -> str:
    """How far an id has received the room, as Redis knows it; "" if it knows nothing."""
    topology, keys = pool._parts.backplane.topology, pool._parts.backplane.setup.keys
    deadline = asyncio.get_running_loop().time() + 10
    key = keys.positions(ROOM)
    found: bytes | None = await topology.call(deadline, key, "HGET", key, id)
    return (found or b"").decode()


@async_test
async def test_a_connection_that_comes_back_gets_what_it_missed(backend: Backend) -> None:
    """Broadcasts that do not leave it out, and what was sent to it alone, ahead of what is live."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        former, websocket = await member_of_lobby(one, "alice")
        assert await former.join(ROOM) is None
        await two.broadcast_message(ROOM, "1")
        assert await websocket.wait_sent() == ["1"]
        await former.close()
        await eventually(lambda: former.closed and not one.statistics()["memberships"])
        assert Position.parse(" ".join((await stored(two)).split(" ")[:2]))
        await two.broadcast_message(ROOM, "2")
        await two.broadcast_message(ROOM, "not for alice", exclude=["alice"])
        await two.send(ROOM, "alice", "3")
        latter, again = await member_of_lobby(two, "alice")
        assert await latter.join(ROOM) is True
        await two.broadcast_message(ROOM, "4")
        # The first one comes again, since a fake WebSocket does not answer the Close.
        assert await again.wait_sent(4) == ["1", "2", "3", "4"]
        assert latter.recovered is None  # of its home, which has no history


@async_test
async def test_an_id_that_has_left_comes_back_as_a_newcomer(backend: Backend) -> None:
    """Messages to it alone are not parked meanwhile."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        connection, websocket = await member_of_lobby(pool, "alice")
        await connection.join(ROOM)
        await connection.leave(ROOM)
        await pool.broadcast_message(ROOM, "1")
        assert not await pool.send(ROOM, "alice", "2")
        assert await connection.join(ROOM) is None
        await pool.broadcast_message(ROOM, "3")
        assert await websocket.wait_sent() == ["3"]


@async_test
async def test_a_loss_is_told(backend: Backend) -> None:
    """Nothing old is sent then."""
    async with backend.pools(1, history={"room:*": History(messages=2)}) as (pool,):
        await join_and_go(pool)
        for number in range(40):
            await pool.broadcast_message(ROOM, str(number))
        latter, again = await member_of_lobby(pool, "alice")
        assert await latter.join(ROOM) is False
        await pool.broadcast_message(ROOM, "live")
        assert await again.wait_sent() == ["live"]


@async_test
async def test_nothing_is_held_without_a_history(backend: Backend) -> None:
    """A join is one claim then."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        connection, websocket = await member_of_lobby(pool, "alice")
        assert await connection.join("other") is None
        await pool.broadcast_message("other", "1")
        assert await websocket.wait_sent() == ["1"]
        assert not pool._parts.rewinds.meets("other")


@async_test
async def test_more_than_fits_while_the_past_is_read_closes_the_client(backend: Backend) -> None:
    """With 1013, as any client that is too slow: it comes back, and nothing is lost in silence."""
    limits = Limits(outbox_bytes=2000, message_bytes=1000)
    async with backend.pools(1, history=ROOMS, limits=limits) as (pool,):
        await join_and_go(pool)
        await pool.broadcast_message(ROOM, "0")
        latter, _ = await member_of_lobby(pool, "alice")
        rewinds: Any = pool._parts.rewinds
        asked, reading = asyncio.Event(), asyncio.Event()
        read = rewinds._tails.read

        async def later(*arguments: Any) -> Any:
            tail = await read(*arguments)
            asked.set()
            await reading.wait()
            return tail

        rewinds._tails.read = later
        joining = asyncio.create_task(latter.join(ROOM))
        await asked.wait()
        for _ in range(5):
            await pool.broadcast_message(ROOM, "x" * 900)
        await eventually(lambda: all(one.overflowed for one in rewinds._holds[ROOM].values()))
        reading.set()
        await joining
        await eventually(lambda: latter.closed)
        assert latter.close_code == 1013


@async_test
async def test_a_join_that_is_cancelled_meanwhile_is_undone(backend: Backend) -> None:
    """The next one still gets what was missed."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        await join_and_go(pool)
        await pool.broadcast_message(ROOM, "missed")
        latter, websocket = await member_of_lobby(pool, "alice")
        rewinds: Any = pool._parts.rewinds
        asked, read = asyncio.Event(), rewinds._tails.read

        async def never(*arguments: Any) -> Any:
            asked.set()
            await asyncio.Event().wait()

        rewinds._tails.read = never
        joining = asyncio.create_task(latter.join(ROOM))
        await asked.wait()
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
        await eventually(lambda: latter.namespaces == ("lobby",))
        rewinds._tails.read = read
        assert await latter.join(ROOM) is True
        assert await websocket.wait_sent() == ["missed"]


@async_test
async def test_an_id_that_is_lost_meanwhile_gets_nothing(backend: Backend) -> None:
    """Another connection took it over, which gets all; nothing is kept for the former one."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        former, _ = await member_of_lobby(two, "alice")
        await former.join(ROOM)
        await former.close()
        await eventually(lambda: not two.statistics()["memberships"])
        await one.broadcast_message(ROOM, "missed")
        latter, websocket = await member_of_lobby(two, "alice")
        rewinds: Any = two._parts.rewinds
        asked, reading, read = asyncio.Event(), asyncio.Event(), rewinds._tails.read

        async def later(*arguments: Any) -> Any:
            asked.set()
            await reading.wait()
            return await read(*arguments)

        rewinds._tails.read = later
        joining = asyncio.create_task(latter.join(ROOM))
        await asked.wait()
        other, others = await member_of_lobby(one, "another")
        assert await other.join(ROOM, id="alice", on_conflict="takeover") is True
        await eventually(lambda: latter.namespaces == ("lobby",))
        await one.send(ROOM, "alice", "private")
        await one.broadcast_message(ROOM, "live")
        assert await others.wait_sent(3) == ["missed", "private", "live"]
        reading.set()
        assert await joining is None
        await two.send("lobby", "alice", "last")
        assert await websocket.wait_sent() == ["last"]
        assert not rewinds.meets(ROOM)
