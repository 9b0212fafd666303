"""Clients that come back to a history that is not whole are told, and get nothing old."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect

from cluster_pool import ClusterPool, History, Limits
from cluster_pool.server.node import NodeServer
from tests.server.framing import node
from tests.server.moving import ROOM
from tests.servers import RedisServer
from tests.support import async_test, eventually

pytestmark = pytest.mark.real

ROOMS = {"room:*": History(messages=50)}


def url(server: NodeServer, id: str) -> str:
    return f"ws://127.0.0.1:{server.port}/ws/{ROOM}?id={id}"


def recovered_of(pool: ClusterPool, id: str = "alice") -> bool | None:
    connection = pool.get_connection(ROOM, id)
    assert connection is not None
    return connection.recovered


async def broadcast(pool: ClusterPool, times: int, text: str = "old") -> None:
    for number in range(times):
        await pool.broadcast_message(ROOM, f"{text} {number}")


async def delete_stream(pool: ClusterPool, redis: RedisServer) -> None:
    async with redis.client() as client:
        await client.delete(pool._parts.setup.keys.history(ROOM))


async def delete_numbers(pool: ClusterPool, redis: RedisServer) -> None:
    keys = pool._parts.setup.keys
    async with redis.client() as client:
        await client.delete(keys.numbers(keys.channel(ROOM)))


async def trim_by_hand(pool: ClusterPool, redis: RedisServer) -> None:
    async with redis.client() as client:
        await client.xtrim(pool._parts.setup.keys.history(ROOM), maxlen=3, approximate=False)


async def overrun(pool: ClusterPool, redis: RedisServer) -> None:
    await broadcast(pool, 100)


@pytest.mark.parametrize("fault", [delete_stream, delete_numbers, trim_by_hand, overrun])
@async_test
async def test_a_client_is_told_that_something_is_lost(
    own_server: RedisServer, fault: Callable[[Any, Any], Awaitable[None]]
) -> None:
    """It gets what is live from then on, and is whole again when it comes back once more."""
    async with (
        node(own_server, "a", history=ROOMS) as (one, server),
        node(own_server, "b", history=ROOMS) as (two, other),
        connect(url(server, "bob")),
    ):
        async with connect(url(server, "alice")) as first:
            await broadcast(two, 1)
            assert await first.recv() == "old 0"
        await eventually(lambda: one.get_connection(ROOM, "alice") is None)
        await broadcast(two, 10)
        await fault(two, own_server)
        async with connect(url(other, "alice")) as second:
            assert recovered_of(two) is False
            await two.broadcast_message(ROOM, "live")
            assert await second.recv() == "live"
        await eventually(lambda: two.get_connection(ROOM, "alice") is None)
        await broadcast(two, 1, "missed")
        async with connect(url(server, "alice")) as third:
            got = [await third.recv() for _ in range(2)]
            assert got == ["live", "missed 0"]  # a client that leaves by itself proves nothing
            assert recovered_of(one) is True


@pytest.mark.parametrize("own_server", ["redis", "valkey"], indirect=True)
@async_test
async def test_newcomers_after_a_loss_of_state_may_lack_something(
    own_server: RedisServer,
) -> None:
    """It is lost who was there, too."""
    async with (
        node(own_server, "a", history=ROOMS) as (one, server),
        node(own_server, "b", history=ROOMS) as (two, other),
        connect(url(server, "bob")),
    ):
        async with connect(url(other, "carol")):
            assert recovered_of(two, "carol") is None
        async with connect(url(server, "alice")):
            pass
        await eventually(lambda: one.get_connection(ROOM, "alice") is None)
        await broadcast(two, 5)
        own_server.kill()
        await eventually(lambda: not one.ready and not two.ready)
        own_server.start()
        await eventually(lambda: one.ready and two.ready, 30)
        async with connect(url(other, "alice")):
            assert recovered_of(two) is False


@pytest.mark.parametrize("own_server", ["redis", "valkey"], indirect=True)
@async_test
async def test_a_redis_that_comes_back_empty_is_a_loss_for_those_who_move(
    own_server: RedisServer,
) -> None:
    """Whether anything was sent meanwhile, nobody knows any more."""
    async with (
        node(own_server, "a", history=ROOMS) as (one, server),
        node(own_server, "b", history=ROOMS) as (two, other),
    ):
        async with connect(url(server, "alice")) as first:
            await broadcast(two, 1)
            assert await first.recv() == "old 0"
            own_server.kill()
            await eventually(lambda: not one.ready)
            own_server.start()
            await eventually(lambda: one.ready and two.ready, 30)
            key = one._parts.setup.keys.positions(ROOM)
            with own_server.sync_client() as client:
                await eventually(lambda: client.hexists(key, "alice"))
        await eventually(lambda: one.get_connection(ROOM, "alice") is None)
        await broadcast(two, 5)
        async with connect(url(other, "alice")) as second:
            got = recovered_of(two)
            await two.broadcast_message(ROOM, "live")
            assert (got, await second.recv()) == (False, "live")


@async_test
async def test_more_than_an_outbox_holds_is_not_replayed_in_part(own_server: RedisServer) -> None:
    """Though the history has all of it."""
    limits = Limits(outbox_bytes=10_000)
    async with (
        node(own_server, "a", history=ROOMS, limits=limits) as (pool, server),
        connect(url(server, "bob")) as bob,
    ):
        async with connect(url(server, "alice")) as first:
            await broadcast(pool, 1)
            assert await first.recv() == "old 0"
        await eventually(lambda: pool.get_connection(ROOM, "alice") is None)
        for _ in range(20):
            await pool.broadcast_message(ROOM, "x" * 1000)
            await bob.recv()
        async with connect(url(server, "alice")) as second:
            assert recovered_of(pool) is False
            await pool.broadcast_message(ROOM, "live")
            assert await second.recv() == "live"
