"""The listeners of a node inside a program: start, stop, and their waiting clients."""

import asyncio
import socket
import time

import pytest
from websockets.asyncio.client import connect

from cluster_pool import ClusterPool, InvalidValueError
from cluster_pool.server.node import ACCEPTS, NodeServer
from cluster_pool.testing import FAST
from tests.server.running import (
    node,
    raw_client,
    url,
)
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import close_code, in_thread


@async_test
async def test_sockets_without_a_request_do_not_delay_a_stop(own_server: RedisServer) -> None:
    """Browsers and proxies connect ahead; a stop does not wait for their requests."""
    async with node(own_server, admin_port=0) as (_, server):
        assert server.admin_port is not None
        with (
            socket.create_connection(("127.0.0.1", server.port)),
            socket.create_connection(("127.0.0.1", server.port)) as half,
        ):
            half.sendall(b"GET /ws/room HTTP/1.1\r\n")
            await asyncio.sleep(0.1)
            began = time.monotonic()
            await server.stop()
            assert time.monotonic() - began < 3


@async_test
async def test_few_connections_are_accepted_per_turn_and_the_rest_wait(
    own_server: RedisServer,
) -> None:
    """The kernel takes all of them while the loop is busy; then each has its turn."""
    async with node(own_server) as (pool, server):
        waiting = [raw_client(server, f"c{number}") for number in range(100)]  # without an await
        for turn in range(1, 5):
            await asyncio.sleep(0)
            accepted = sum(len(members) for members in server._keepalive._slices)
            assert accepted <= turn * ACCEPTS
        await eventually(lambda: pool.statistics()["connections"] == 100)
        answers = await in_thread(lambda: {client.recv(12) for client in waiting})
        assert answers == {b"HTTP/1.1 101"}
        for client in waiting:
            client.close()


@async_test
async def test_takeover_closes_the_older_connection_with_4409(own_server: RedisServer) -> None:
    """The client that had the id gets 4409; the newer one is reached."""
    async with (
        node(own_server) as (pool, server),
        connect(url(server, "alice")) as older,
        connect(url(server, "alice")) as newer,
    ):
        assert await close_code(older) == 4409
        assert await pool.send("room", "alice", "hi", confirm=True)
        assert await newer.recv() == "hi"
        assert await pool.count("room") == 1


@async_test
async def test_port_in_use_is_an_error_that_names_it(own_server: RedisServer) -> None:
    """The port does not stay open."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options in ({"port": port}, {"port": 0, "admin_port": port}):
            async with ClusterPool(own_server.url, timing=FAST) as pool:
                server = NodeServer(pool, **options)
                with pytest.raises(InvalidValueError, match=str(port)):
                    await server.start()
                await server.stop()
