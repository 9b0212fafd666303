"""Applications of a node: effects of their ends, errors and hangs on other connections."""

import asyncio

import pytest
from websockets.asyncio.client import connect

from cluster_pool import ClusterPool, Connection, Timing
from tests.server.running import (
    node,
    url,
)
from tests.servers import RedisServer
from tests.stubborn import stubborn
from tests.support import async_test, eventually
from tools.harness.nodes import close_code


@async_test
async def test_app_that_hangs_or_fails_affects_its_own_connection_alone(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and logged once with its connection; its id is free, and others are served."""
    for_ever = asyncio.Event()

    async def app(pool: ClusterPool, connection: Connection) -> None:
        if connection.id == "fails":
            raise RuntimeError("on purpose")
        if connection.id == "hangs":
            await for_ever.wait()
        async for message in connection:
            await connection.send(message)

    timing = Timing(lease=1.5, heartbeat=0.3, handler=0.3)
    async with node(own_server, timing=timing, app=app) as (pool, server):
        async with connect(url(server, "hangs")):
            pass
        async with connect(url(server, "fails")) as fails:
            assert await close_code(fails) == 1011
        await eventually(lambda: pool.statistics()["handler_hangs"] == 1)
        assert pool.statistics()["handler_errors"] == 1
        async with connect(url(server, "serves")) as serves:
            await serves.send("echo")
            assert await serves.recv() == "echo"
            assert await pool.count("room") == 1
        said = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
        assert len([text for text in said if "'hangs'" in text]) == 1
        assert len([text for text in said if "'fails'" in text]) == 1
        await server.stop()
    for_ever.set()


@async_test
async def test_app_iteration_ends_when_its_client_is_kicked(own_server: RedisServer) -> None:
    """The client stays connected; the app's code after its loop runs."""
    after: list[tuple[str, list[object]]] = []

    async def app(pool: ClusterPool, connection: Connection) -> None:
        got = [message async for message in connection]
        await asyncio.sleep(0.01)
        after.append((connection.id, got))

    async with (
        node(own_server, app=app) as (pool, server),
        stubborn(url(server, "loud")) as loud,
        stubborn(url(server, "quiet")) as quiet,
    ):
        await eventually(lambda: pool.statistics()["connections"] == 2)
        loud.say("hello")
        await asyncio.sleep(0.1)
        await pool.close_all("room", 4000, "out")
        await loud.told(4000)
        await quiet.told(4000)
        for number in range(100):
            loud.say(str(number))
        await eventually(lambda: len(after) == 2)
        assert sorted(after) == [("loud", ["hello"]), ("quiet", [])]


@async_test
async def test_an_app_that_sends_by_the_library_keeps_the_order(own_server: RedisServer) -> None:
    """Its close goes behind what the pool has sent."""

    async def app(pool: ClusterPool, connection: Connection) -> None:
        for number in range(0, 20, 2):
            await connection.send(str(number))
            await connection.websocket.send(str(number + 1))
        await connection.send("last")
        await connection.websocket.close(4000)

    async with node(own_server, app=app) as (_, server), connect(url(server, "a")) as client:
        assert [await client.recv() for _ in range(21)] == [*map(str, range(20)), "last"]
        assert await close_code(client) == 4000
