"""Unread messages of clients are bounded in bytes, and no client is closed for them."""

import asyncio
import contextlib
import socket
from functools import partial
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from cluster_pool import ClusterPool, Connection, Limits
from cluster_pool.local.closing import is_gone
from cluster_pool.server.intake import CHUNK
from cluster_pool.server.node import NodeServer
from cluster_pool.testing import FAST
from tests.server.running import url
from tests.servers import RedisServer
from tests.stubborn import stubborn
from tests.support import async_test, eventually

MIB = 1024 * 1024


@contextlib.asynccontextmanager
async def node(redis: RedisServer, limits: Limits, **options: Any) -> Any:
    """A started pool with these limits, its listener, and the most that it ever held."""
    pool = ClusterPool(redis.url, node_id="a", timing=FAST, limits=limits)
    server = NodeServer(pool, port=0, **options)
    await pool.start()
    await server.start()
    most = [0]

    async def look() -> None:
        while True:
            most[0] = max(most[0], pool.statistics()["inbound_bytes"])
            await asyncio.sleep(0)

    looking = asyncio.create_task(look())
    try:
        yield pool, server, most
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)
        await server.stop()


@contextlib.asynccontextmanager
async def clients(server: NodeServer, count: int) -> Any:
    """So many connected clients; cut at the end."""
    made: list[ClientConnection] = []
    try:
        for number in range(count):
            address = url(server, str(number))
            made.append(await connect(address, compression=None, ping_interval=None))
        yield made
    finally:
        for client in made:
            client.transport.abort()
        await asyncio.gather(*[client.wait_closed() for client in made])


async def say(client: ClientConnection, messages: int, size: int) -> None:
    for _ in range(messages):
        await client.send(b"x" * size)


async def gets_through(pool: ClusterPool, client: ClientConnection) -> bool:
    """Whether a client's message is published, and not lost because Redis was away just now."""
    lost = pool.statistics()["inbound_lost"]
    await say(client, 1, 10)
    await (await client.ping())
    await eventually(lambda: not pool.statistics()["inbound_bytes"])
    return pool.statistics()["inbound_lost"] == lost


@async_test
async def test_bytes_from_many_clients_stay_bounded_while_redis_is_frozen(
    own_server: RedisServer,
) -> None:
    """Half of the bytes are for unread ones, half for published ones, plus a read of each; when
    Redis is back every client is read again, and none was closed."""
    limits = Limits(node_inbound_bytes=8 * MIB)
    async with (
        node(own_server, limits, ping_interval=0.5) as (pool, server, most),
        clients(server, 20) as crowd,
    ):
        own_server.freeze()
        talking = [asyncio.create_task(say(client, 5, MIB)) for client in crowd]
        await eventually(lambda: most[0] > 4 * MIB)
        await asyncio.sleep(1)
        own_server.thaw()
        await asyncio.wait_for(asyncio.gather(*talking), 30)
        await asyncio.wait_for(pool.wait_ready(), 20)
        await eventually(lambda: not pool.statistics()["inbound_bytes"])
        assert most[0] <= 8 * MIB + 20 * CHUNK + MIB
        await eventually(lambda: gets_through(pool, crowd[0]))
        lost = pool.statistics()["inbound_lost"]
        await asyncio.gather(*[say(client, 1, 10) for client in crowd])
        for number, client in enumerate(crowd):
            assert client.close_code is None
            await eventually(partial(pool.send, "room", str(number), "hello"))
            assert await client.recv() == "hello"
        assert pool.statistics()["inbound_lost"] == lost


@async_test
async def test_client_above_its_limit_is_paused_and_loses_nothing(own_server: RedisServer) -> None:
    """Its app is slow: only this client is paused; then everything arrives, in order."""
    go, got, other = asyncio.Event(), [], []

    async def app(pool: ClusterPool, connection: Connection) -> None:
        if connection.id == "1":
            other.extend([message async for message in connection])
            return
        await go.wait()
        got.extend([message async for message in connection])

    limits = Limits(inbound_bytes=100_000, inbound_per_second=100_000)
    async with node(own_server, limits, app=app) as (pool, server, most):
        async with clients(server, 2) as (slow, quick):
            said = [f"{number} " + "ü" * 3000 for number in range(400)]

            async def talk() -> None:
                for text in said:
                    await slow.send(text)
                await slow.close()

            talking = asyncio.create_task(talk())
            await eventually(lambda: most[0] > 100_000)
            await say(quick, 50, 50_000)
            await quick.close()
            await eventually(lambda: len(other) == 50)
            assert most[0] <= 2 * (100_000 + CHUNK)
            go.set()
            await talking
            await eventually(lambda: len(got) == len(said))
            assert got == said
        await eventually(lambda: not pool.statistics()["inbound_bytes"])


@async_test
async def test_unfinished_messages_of_many_clients_do_not_block_each_other(
    own_server: RedisServer,
) -> None:
    """Together they exceed the bound, and none is complete: they take turns, whole or in parts;
    one that never goes on does not keep the others."""
    got: list[int] = []

    async def app(pool: ClusterPool, connection: Connection) -> None:
        got.extend([len(message) async for message in connection])

    limits = Limits(node_inbound_bytes=MIB)
    async with node(own_server, limits, app=app) as (pool, server, _):
        async with clients(server, 12) as crowd:
            for client in crowd[:3]:  # 900,000 bytes of a message, and no more
                client.transport.write(b"\x82\xff" + MIB.to_bytes(8, "big") + bytes(4 + 900_000))
            await eventually(lambda: pool.statistics()["inbound_bytes"] > 500_000)

            async def parts(client: ClientConnection) -> None:
                await client.send([b"x" * 100_000] * 10)
                await client.send(b"y" * 1_000_000)
                await client.close()

            await asyncio.wait_for(asyncio.gather(*[parts(one) for one in crowd[3:]]), 30)
            await eventually(lambda: sorted(got) == [1_000_000] * 18)
        await eventually(lambda: not pool.statistics()["inbound_bytes"])


@pytest.mark.parametrize("how", ["kicked", "left"])
@async_test
async def test_bytes_that_no_handler_will_take_are_not_counted(
    own_server: RedisServer, how: str
) -> None:
    """A client was kicked while its app was busy; another one's app returned early."""
    go = asyncio.Event()

    async def app(pool: ClusterPool, connection: Connection) -> None:
        await go.wait()

    async with node(own_server, Limits(), app=app) as (pool, server, _), clients(server, 1) as one:
        (client,) = one
        await say(client, 3, 100_000)
        await eventually(lambda: pool.statistics()["inbound_bytes"] > 300_000)
        if how == "kicked":
            await pool.close("room", "0")
            await client.wait_closed()
            assert pool.statistics()["forced_closes"] == 0
        else:
            client.transport.abort()
            await eventually(lambda: not pool.statistics()["connections"])
        if how == "left":
            go.set()
        await eventually(lambda: not pool.statistics()["inbound_bytes"])
        go.set()


@async_test
async def test_client_that_pings_and_never_reads_is_closed_and_cut(own_server: RedisServer) -> None:
    """The library answers pings outside the outbox: without a check they would pile up."""
    pings, limit, most = (b"\x89\xfd" + bytes(4) + b"x" * 125) * 500, 128 * 1024, 0
    limits = Limits(outbox_bytes=limit, inbound_per_second=10**9)
    async with node(own_server, limits) as (pool, server, _):
        async with stubborn(url(server, "a"), reads=False) as client:
            await eventually(lambda: pool.statistics()["connections"])
            connection = pool.get_connection("room", "a")
            tcp = connection.websocket.transport
            tcp.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            async with asyncio.timeout(30):
                while not is_gone(connection) and most <= 8 * limit:
                    client.writer.write(pings)
                    await asyncio.sleep(0)
                    most = max(most, tcp.get_write_buffer_size())
            assert most < 8 * limit  # 4, and what one read brings
        assert pool.statistics()["slow_consumers"] == pool.statistics()["forced_closes"] == 1
