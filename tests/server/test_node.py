"""The server inside a process of one's own: on a real Redis, with real sockets."""

import asyncio
import contextlib
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from cluster_pool import ClusterPool, Connection, InvalidValueError, Timing
from cluster_pool.local.closing import is_gone
from cluster_pool.server.node import ACCEPTS, NodeServer
from cluster_pool.testing import FAST
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import close_code, in_thread

HANDSHAKE = (
    "GET /ws/room?id={id} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
)
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER that makes close() a reset."""


@contextlib.asynccontextmanager
async def node(
    redis: RedisServer, timing: Timing = FAST, **options: Any
) -> AsyncIterator[tuple[ClusterPool, NodeServer]]:
    """A started pool and its listener."""
    pool = ClusterPool(redis.url, node_id="a", timing=timing)
    server = NodeServer(pool, port=0, **options)
    await pool.start()
    try:
        await server.start()
        yield pool, server
    finally:
        await server.stop()


def url(server: NodeServer, id: str) -> str:
    return f"ws://127.0.0.1:{server.port}/ws/room?id={id}"


def raw_client(server: NodeServer, id: str, key: str = KEY) -> socket.socket:
    """A client that has sent its handshake and does nothing more by itself."""
    client = socket.create_connection(("127.0.0.1", server.port))
    client.settimeout(10)
    client.sendall(HANDSHAKE.format(id=id, key=key).encode())
    return client


@async_test
async def test_who_answers_no_ping_is_closed_and_who_does_stays(own_server: RedisServer) -> None:
    """A client that is only a socket is no member for long; its close says 1011."""
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
async def test_a_client_pays_for_no_backlog_of_ours(own_server: RedisServer) -> None:
    """Bytes of it wait unread behind a slow app: it may have answered, and stays."""
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
async def test_an_outage_of_redis_closes_no_client_that_talks(own_server: RedisServer) -> None:
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
async def test_a_member_ends_with_its_websocket(own_server: RedisServer) -> None:
    """Also when the app reads nothing and never returns: that one is cancelled with the node."""
    cancelled = asyncio.Event()

    async def deaf(pool: ClusterPool, connection: Connection) -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    async with node(own_server, app=deaf) as (pool, server):
        async with connect(url(server, "alice")):
            connection = pool.get_connection("room", "alice")
            assert connection is not None
        await eventually(lambda: not pool.get_connection("room", "alice"))
        await eventually(lambda: is_gone(connection))
        assert (connection.close_code, connection.close_reason) == (1000, "")
        assert not cancelled.is_set()
        began = time.monotonic()
    assert cancelled.is_set()
    assert time.monotonic() - began < 5


@async_test
async def test_sockets_that_ask_for_nothing_do_not_hold_up_a_stop(own_server: RedisServer) -> None:
    """Browsers and proxies connect ahead; a stop does not wait for what they might say."""
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
async def test_many_may_wait_while_few_are_accepted_in_a_turn(own_server: RedisServer) -> None:
    """The kernel takes them all, while the loop does something else; then each has its turn."""
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
async def test_a_client_gone_before_its_claim_is_answered(own_server: RedisServer) -> None:
    """Redis is slow, the client impatient: when the claim succeeds it is given up."""
    async with (
        node(own_server) as (pool, server),
        connect(url(server, "warm")),
    ):
        own_server.freeze()
        clients = [raw_client(server, f"impatient{number}") for number in range(5)]
        await asyncio.sleep(0.2)
        for client in clients:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.close()
        await asyncio.sleep(0.1)
        own_server.thaw()
        await asyncio.wait_for(pool.wait_ready(), 15)
        await eventually(lambda: _count_is(pool, 1))


async def _count_is(pool: ClusterPool, count: int) -> bool:
    return await pool.count("room") == count


@async_test
async def test_a_handshake_that_fails_after_the_claim(own_server: RedisServer) -> None:
    """A key that is none: 400, and nobody became a member."""
    async with node(own_server) as (pool, server):
        with raw_client(server, "odd", key="short") as odd:
            assert (await in_thread(odd.recv, 4096)).startswith(b"HTTP/1.1 400")
        await eventually(lambda: _count_is(pool, 0))
        assert pool.statistics()["connections"] == 0


@async_test
async def test_an_app_that_hangs_or_fails_hurts_nobody_else(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Counted and logged once with its connection; its id is free, and others are served."""
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
async def test_a_takeover_closes_the_older_one(own_server: RedisServer) -> None:
    """4409 to the client that had the id; the newer one is reached."""
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
async def test_compression_only_if_asked_for(own_server: RedisServer) -> None:
    """And then messages arrive as they should."""
    for wanted in (False, True):
        async with (
            node(own_server, compression=wanted) as (pool, server),
            connect(url(server, "alice")) as alice,
        ):
            assert bool(alice.protocol.extensions) is wanted
            await pool.broadcast_message("room", "x" * 1000)
            assert await alice.recv() == "x" * 1000


@async_test
async def test_status_tells_much_and_no_secret(own_server: RedisServer) -> None:
    """Node, state, sizes, counters, versions; the password of Redis is not among them."""
    own_server.command("CONFIG", "SET", "requirepass", "s3cret")
    secret = f"unix://:s3cret@{own_server.path}"
    async with ClusterPool(secret, node_id="a", timing=FAST) as pool:
        server = NodeServer(pool, port=0, admin_port=0)
        await server.start()
        try:
            async with connect(url(server, "alice")):
                text = await in_thread(_get, f"http://127.0.0.1:{server.admin_port}/status")
        finally:
            await server.stop()
    status = json.loads(text)
    assert (status["node"], status["state"], status["ready"]) == ("a", "active", True)
    assert (status["connections"], status["namespaces"]) == (1, 1)
    assert {"python", "websockets", "redis_py", "redis", "inbound_lost"} <= status.keys()
    assert "s3cret" not in text


def _get(address: str | urllib.request.Request) -> str:
    with urllib.request.urlopen(address) as answer:
        return str(answer.read().decode())


@async_test
async def test_an_admin_listener_for_others_wants_a_token(own_server: RedisServer) -> None:
    """Elsewhere than on loopback it does not start without one; with one it asks everybody."""
    async with ClusterPool(own_server.url, timing=FAST) as pool:
        with pytest.raises(InvalidValueError, match=r"'0\.0\.0\.0' needs a token"):
            NodeServer(pool, port=0, admin_port=0, admin_host="0.0.0.0")
        server = NodeServer(pool, port=0, admin_port=0, admin_host="0.0.0.0", admin_token="t0ken")
        await server.start()
        address = f"http://127.0.0.1:{server.admin_port}/status"
        try:
            for wrong in ({}, {"Authorization": "Bearer t0ke"}, {"Authorization": "\u00ff"}):
                with pytest.raises(urllib.error.HTTPError) as caught:
                    await in_thread(_get, urllib.request.Request(address, headers=wrong))
                assert caught.value.code == 401
                caught.value.close()
            right = {"Authorization": "Bearer t0ken"}
            text = await in_thread(_get, urllib.request.Request(address, headers=right))
        finally:
            await server.stop()
    assert json.loads(text)["ready"] is True
    assert "t0ken" not in text


@async_test
async def test_a_port_that_cannot_be_had(own_server: RedisServer) -> None:
    """The error names it; nothing goes on listening."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for options in ({"port": port}, {"port": 0, "admin_port": port}):
            async with ClusterPool(own_server.url, timing=FAST) as pool:
                server = NodeServer(pool, **options)
                with pytest.raises(InvalidValueError, match=str(port)):
                    await server.start()
                await server.stop()
