"""Pings: which clients are closed because nothing comes, and which are not."""

import asyncio
import dataclasses

from websockets.asyncio.client import connect

from cluster_pool import ClusterPool, Connection
from cluster_pool.local.closing import is_gone
from cluster_pool.testing import FAST
from tests.server.running import (
    node,
    raw_client,
    url,
)
from tests.servers import RedisServer
from tests.stubborn import stubborn
from tests.support import async_test, eventually
from tools.harness.nodes import in_thread

CLOSE = b"\x88\x82" + bytes(4) + b"\x03\xe9"
"""A masked Close with 1001."""


@async_test
async def test_client_without_a_pong_is_closed_with_1011(own_server: RedisServer) -> None:
    """It is soon no member any more; its close has 1011."""
    async with node(own_server, ping_interval=0.4) as (pool, server):
        with raw_client(server, "dead") as dead:
            async with connect(url(server, "alive"), ping_interval=None) as alive:
                await eventually(lambda: pool.get_connection("room", "dead"))
                await eventually(lambda: not pool.get_connection("room", "dead"))
                assert await pool.locate("room", "dead") is None
                heard = await in_thread(dead.recv, 65536)
                while (rest := await in_thread(dead.recv, 65536)) and b"\x03\xf3" not in heard:
                    heard += rest
                assert b"\x89\x00" in heard
                assert (1011).to_bytes(2, "big") in heard
                await asyncio.sleep(0.9)
                await alive.send("still here")
                assert pool.get_connection("room", "alive") is not None


@async_test
async def test_client_that_is_not_read_from_is_not_judged_by_pings(own_server: RedisServer) -> None:
    """Its bytes wait unread behind a slow app: it may have answered, and stays."""
    reading = asyncio.Event()

    async def slow(pool: ClusterPool, connection: Connection) -> None:
        await reading.wait()
        await connection.wait_closed()

    async with (
        node(own_server, app=slow, ping_interval=0.2) as (pool, server),
        connect(url(server, "eager"), ping_interval=None) as eager,
    ):
        for number in range(200):
            await eager.send(f"{number}")
        await asyncio.sleep(1)
        assert pool.get_connection("room", "eager") is not None
        reading.set()
        await asyncio.sleep(0.5)
        assert pool.get_connection("room", "eager") is not None
        assert await pool.send("room", "eager", "hi")
        assert await eager.recv() == "hi"


@async_test
async def test_outage_of_redis_closes_no_client_that_goes_on_sending(
    own_server: RedisServer,
) -> None:
    """While Redis is frozen a client goes on sending, and its pongs are heard; then all is well."""
    async with (
        node(own_server, ping_interval=0.5) as (pool, server),
        connect(url(server, "chatty"), ping_interval=None) as chatty,
    ):
        await chatty.send("before")
        own_server.freeze()
        for number in range(150):
            await chatty.send(f"{number}" * 20)
            await asyncio.sleep(0.03)
        own_server.thaw()
        await asyncio.wait_for(pool.wait_ready(), 15)
        lost = pool.statistics()["inbound_lost"]
        assert lost > 50
        await asyncio.sleep(0.6)
        assert await pool.send("room", "chatty", "back", confirm=True)
        assert await chatty.recv() == "back"


@async_test
async def test_client_still_closing_in_the_second_round_of_pings_is_cut(
    own_server: RedisServer,
) -> None:
    """Long before the time limit of a close handshake."""
    timing = dataclasses.replace(FAST, close=60.0)
    async with (
        node(own_server, timing, ping_interval=0.3) as (pool, server),
        stubborn(url(server, "a")) as client,
    ):
        await eventually(lambda: pool.get_connection("room", "a"))
        connection = pool.get_connection("room", "a")
        assert connection is not None
        client.writer.write(CLOSE)
        await eventually(lambda: is_gone(connection))
        assert pool.statistics()["forced_closes"] == 1
