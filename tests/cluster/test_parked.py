"""Messages that were parked for ids whose clients were connected all the while, or have left."""

import asyncio
import itertools

from cluster_pool import Connection, History, SendResult
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.core.history import Position
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend, Pool, claim_of, connection_of
from tests.support import async_test, eventually

ROOM = "room:7"
ROOMS = {"room:*": History(replay_targeted_without_user=True)}


async def come(pool: Pool, user: str | None) -> tuple[Connection, FakeWebSocket]:
    """A connection under one id."""
    connection = Connection("alice", ROOM, websocket := FakeWebSocket(), user=user)
    await pool.new_connection(connection)
    return connection, websocket


async def come_and_go(pool: Pool, user: str | None) -> None:
    """A connection that has ended, and released its id."""
    connection, _ = await come(pool, user)
    await connection.close()
    await eventually(lambda: not pool.statistics()["memberships"])


async def park(backend: Backend, pool: Pool) -> str:
    """A message to a member whose claim is removed, as when its node is taken for dead; the node
    registers it again, perhaps before a message is parked."""
    members = pool._parts.setup.keys.members(ROOM)
    for number in itertools.count():
        with backend.sync_client() as client:
            client.hdel(members, "alice")
        if await pool.send(ROOM, "alice", f"to alice {number}") is SendResult.PARKED:
            return f"to alice {number}"
    raise AssertionError


async def texts(websocket: FakeWebSocket, last: str) -> list[str | bytes]:
    """The messages that came, up to one."""
    await eventually(lambda: last in websocket.sent)
    return list(websocket.sent)


@async_test
async def test_each_of_a_batch_is_at_its_place(backend: Backend) -> None:
    """Also where the number of a place gets another digit; what has an owner is routed."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        await connection_of(await one.host(ROOM, "alice")).close()
        bob = await one.host(ROOM, "bob with a longer name")
        await eventually(lambda: one.statistics()["memberships"] == 1)
        ids = ("alice", "bob with a longer name")
        sent = [two.send(ROOM, id, f"{id} {at}") for at in range(12) for id in ids]
        results = await asyncio.gather(*sent)
        assert results == 12 * [SendResult.PARKED, SendResult.ROUTED]
        assert await texts(bob, f"{ids[1]} 11") == [f"{ids[1]} {at}" for at in range(12)]
        back = await two.host(ROOM, "alice")
        assert await texts(back, "alice 11") == [f"alice {at}" for at in range(12)]
        assert (await two.position(ROOM)).endswith(".24")


@async_test
async def test_its_client_is_closed_and_comes_back_for_them(backend: Backend) -> None:
    """With 1013; others stay. What has come since is sent again, behind them."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        alice, bob = [await one.host(ROOM, id) for id in ("alice", "bob")]
        await two.broadcast_message(ROOM, "1")
        await alice.wait_sent()
        parked = await park(backend, two)
        await eventually(lambda: connection_of(alice).close_code == 1013, 30)
        back = await two.host(ROOM, "alice")
        assert connection_of(back).recovered is True
        await two.broadcast_message(ROOM, "2")
        assert (await texts(back, "2"))[-2:] == [parked, "2"]
        assert parked not in alice.sent
        assert await texts(bob, "2") == ["1", "2"]
        assert not connection_of(bob).closed


@async_test
async def test_no_later_position_is_stored(backend: Backend) -> None:
    """Live messages came after those that were parked, and the client has received them; also when
    the history has begun anew meanwhile."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        parts = two._parts.backplane
        keys, claim = parts.setup.keys, claim_of(await one.host(ROOM, "alice"))
        await two.broadcast_message(ROOM, "1")
        async with backend.client() as client:
            registered = await client.hget(keys.members(ROOM), "alice")
        parked = await park(backend, two)
        await two.broadcast_message(ROOM, "2")
        here = Position.parse((await two.position(ROOM)).replace(".", " "))
        assert here is not None
        for later in (here, Position(f"{int(here.epoch) + 1}", 0)):
            stored = [("alice", claim, parts.claims.entry(ROOM, later, None))]
            async with backend.client() as client:
                await client.hset(keys.members(ROOM), "alice", registered)
                await parts.claims.store_positions(ROOM, stored, deadline_in(20))
                found = (await client.hget(keys.positions(ROOM), "alice")).decode()
            epoch, number, _ = found.split(" ")
            assert epoch == here.epoch
            assert int(number) <= here.number - 2
        back = await two.host(ROOM, "alice")
        assert (await texts(back, "2"))[-2:] == [parked, "2"]
        assert not backend.keys_of("parked_positions")


@async_test
async def test_nothing_is_parked_for_an_id_of_a_former_epoch(backend: Backend) -> None:
    """The history has begun anew since it was there: it comes back to nothing, and is told."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        keys, other = pool._parts.setup.keys, await pool.host(ROOM, "other")
        await connection_of(await pool.host(ROOM, "alice")).close()
        await eventually(lambda: pool.statistics()["memberships"] == 1)
        assert await pool.send(ROOM, "alice", "parked") is SendResult.PARKED
        with backend.sync_client() as client:
            client.hset(keys.numbers(keys.channel(ROOM)), "epoch", "")
        await pool.broadcast_message(ROOM, "1")
        assert await pool.send(ROOM, "alice", "lost") is SendResult.ABSENT
        assert (await pool.position(ROOM)).endswith(".1")
        back = await pool.host(ROOM, "alice")
        assert connection_of(back).recovered is False
        assert await pool.send(ROOM, "alice", "2")
        assert await back.wait_sent() == ["2"]
        assert other.sent == ["1"]


@async_test
async def test_messages_to_one_user_are_for_that_user_alone(backend: Backend) -> None:
    """Another one with the same id gets broadcasts alone, and nothing that was sent before; so does
    one without a user, although ids without users have readers here."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        await come_and_go(one, user="42")
        await two.broadcast_message(ROOM, "to all")
        assert await two.send(ROOM, "alice", "to 42") is SendResult.PARKED
        for other in ("7", None):
            stranger = await come(two, user=other)
            await two.broadcast_message(ROOM, f"live for {other}")
            await eventually(lambda s=stranger: s[1].sent)
            assert stranger[0].recovered is None
            assert stranger[1].sent == [f"live for {other}"]
            await two.remove_connection(stranger[0])
        assert await two.send(ROOM, "never there", "x") is SendResult.ABSENT


@async_test
async def test_the_same_user_gets_what_was_parked(backend: Backend) -> None:
    """In order with the broadcasts; an id without a user only where the history says so."""
    for user, history in (("42", History()), (None, History(replay_targeted_without_user=True))):
        async with backend.pools(2, history={"room:*": history}) as (one, two):
            await come_and_go(one, user=user)
            await two.broadcast_message(ROOM, "1")
            assert await two.send(ROOM, "alice", "2", confirm=True) is SendResult.PARKED
            await two.broadcast_message(ROOM, "3")
            connection, websocket = await come(two, user=user)
            assert connection.recovered is True
            assert await websocket.wait_sent(3) == ["1", "2", "3"]
            await two.remove_connection(connection)


@async_test
async def test_nothing_is_parked_for_ids_that_nobody_may_read(backend: Backend) -> None:
    """As without a history; broadcasts are recovered all the same."""
    async with backend.pools(2, history={"room:*": History()}) as (one, two):
        await come_and_go(one, user=None)
        assert await two.send(ROOM, "alice", "x") is SendResult.ABSENT
        await two.broadcast_message(ROOM, "1")
        _, websocket = await come(two, user=None)
        assert await websocket.wait_sent() == ["1"]


@async_test
async def test_a_message_that_crosses_with_the_end_of_its_connection_is_parked(
    backend: Backend,
) -> None:
    """Redis found the id at its node, which had lost it meanwhile: the answer is not ABSENT, since
    the message comes with the next connection."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        connection, _ = await come(one, None)
        members = one._parts.setup.keys.members(ROOM)
        with backend.sync_client() as client:
            registered = client.hget(members, "alice")
        await connection.close()
        await eventually(lambda: not one.statistics()["memberships"])
        with backend.sync_client() as client:
            client.hset(members, "alice", registered)
        assert await two.send(ROOM, "alice", "1", confirm=True) is SendResult.PARKED
        assert one.statistics()["undelivered"] == 1
        back = await two.host(ROOM, "alice")
        assert await back.wait_sent() == ["1"]


@async_test
async def test_a_message_that_crosses_with_a_leave_is_not_parked(backend: Backend) -> None:
    """An id that has left by itself comes back as a newcomer."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        home = connection_of(await one.host("lobby", "alice"))
        await home.join(ROOM)
        members = one._parts.setup.keys.members(ROOM)
        with backend.sync_client() as client:
            registered = client.hget(members, "alice")
        await home.leave(ROOM)
        with backend.sync_client() as client:
            client.hset(members, "alice", registered)
        assert await two.send(ROOM, "alice", "1", confirm=True) is SendResult.ABSENT
        with backend.sync_client() as client:
            client.hdel(members, "alice")


@async_test
async def test_messages_to_members_of_a_dead_node_are_parked_before_it_is_buried(
    backend: Backend,
) -> None:
    """Its lease is over, and its members are not removed; without a history it is unreachable."""
    async with backend.pools(2, history=ROOMS) as (one, two):
        parts = two._parts
        await one._parts.reaper.stop()
        await parts.reaper.stop()
        await two.host(ROOM, "alice")
        await two.host("lobby", "alice")
        await parts.lease_keeper.stop()
        leases, incarnation = parts.setup.keys.leases, two.statistics()["incarnation"]
        async with backend.client() as client:
            await client.zadd(leases, {incarnation: 1})

        async def unreachable() -> bool:
            return await one.send("lobby", "alice", "x") is SendResult.UNREACHABLE

        await eventually(unreachable)
        for number in range(3):
            assert await one.send(ROOM, "alice", str(number)) is SendResult.PARKED
        back = await one.host(ROOM, "alice", on_conflict="takeover")
        assert await back.wait_sent(3, 20) == ["0", "1", "2"]
