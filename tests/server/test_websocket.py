"""One WebSocket of a node: its messages, and the end of its member."""

import asyncio
import dataclasses
import gc
import socket
import time
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.http11 import Request

from cluster_pool import ClusterPool, Connection, SendResult
from cluster_pool.local.closing import is_gone
from cluster_pool.testing import FAST
from tests.server.running import node, url
from tests.servers import RedisServer
from tests.stubborn import stubborn
from tests.support import async_test, eventually
from tools.harness.frames import TEXT, masked, request

MASK = bytes(4)
ENDS = {
    "close": (b"\x88\x82" + MASK + b"\x03\xe9", 1001),
    "close without a code": (b"\x88\x80" + MASK, 1005),
    "close with a bad code": (b"\x88\x82" + MASK + b"\x00\x01", 1006),
    "close with a bad reason": (b"\x88\x83" + MASK + b"\x03\xe8\xff", 1006),
    "close amid a message": (b"\x01\x81" + MASK + b"a\x88\x82" + MASK + b"\x03\xe8", 1000),
    "no mask": (b"\x81\x01a", 1006),
    "reserved bit": (b"\xc1\x81" + MASK + b"a", 1006),
    "reserved opcode": (b"\x83\x80" + MASK, 1006),
    "a part of nothing": (b"\x80\x80" + MASK, 1006),
    "a long ping": (b"\x89\xfe\x00\x80" + MASK + bytes(128), 1006),
    "too large": (b"\x82\xff\x00\x00\x00\x01\x00\x00\x00\x00" + MASK, 1006),
    "no UTF-8": (b"\x81\x81" + MASK + b"\xff", 1006),
    "no UTF-8 in parts": (b"\x01\x81" + MASK + b"\xe2" + b"\x80\x81" + MASK + b"(", 1006),
    "two ends": (b"\x88\x82" + MASK + b"\x03\xe8" + b"\x83\x80" * 99, 1000),
}
"""The bytes of a client, and the code with which its connection has then ended."""


@pytest.mark.parametrize("how", ENDS)
@async_test
async def test_client_that_ends_its_protocol_is_no_member_though_its_socket_stays(
    own_server: RedisServer, how: str
) -> None:
    """Sends are ABSENT at once, here and from elsewhere; the socket is cut after its time."""
    said, code = ENDS[how]
    timing = dataclasses.replace(FAST, close=0.5)
    other = ClusterPool(own_server.url, node_id="b", timing=FAST)
    async with (
        node(own_server, timing) as (pool, server),
        other,
        stubborn(url(server, "a")) as client,
    ):
        await eventually(lambda: pool.get_connection("room", "a"))
        connection = pool.get_connection("room", "a")
        assert connection is not None
        client.writer.write(said)
        await eventually(lambda: connection.closed)
        await eventually(lambda: not pool.get_connection("room", "a"))
        assert await pool.send("room", "a", "x") is SendResult.ABSENT
        assert await other.send("room", "a", "x", confirm=True) is SendResult.ABSENT
        assert connection.close_code == code
        await eventually(lambda: is_gone(connection))
        assert pool.statistics()["forced_closes"] == 1


@async_test
async def test_messages_before_the_end_of_a_stream_are_heard(own_server: RedisServer) -> None:
    """The app reads them although the connection is closing, and then ends."""
    go, got = asyncio.Event(), []

    async def app(pool: ClusterPool, connection: object) -> None:
        await go.wait()
        got.extend([message async for message in connection])  # type: ignore[attr-defined]

    async with (
        node(own_server, app=app) as (pool, server),
        stubborn(url(server, "a")) as client,
    ):
        await eventually(lambda: pool.get_connection("room", "a"))
        connection = pool.get_connection("room", "a")
        assert connection is not None
        for text in ("one", "two"):
            client.say(text)
        client.writer.write(ENDS["no mask"][0])
        await eventually(lambda: connection.closed)
        go.set()
        await eventually(lambda: is_gone(connection))
        await eventually(lambda: got == ["one", "two"])


@async_test
async def test_member_ends_with_its_websocket_though_its_app_runs_on(
    own_server: RedisServer,
) -> None:
    """Also when the app reads nothing and never returns: it is cancelled with the node."""
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
async def test_compression_is_negotiated_only_if_it_is_enabled(own_server: RedisServer) -> None:
    """Messages then arrive unchanged."""
    for wanted in (False, True):
        async with (
            node(own_server, compression=wanted) as (pool, server),
            connect(url(server, "alice")) as alice,
        ):
            assert bool(alice.protocol.extensions) is wanted
            await pool.broadcast_message("room", "x" * 1000)
            assert await alice.recv() == "x" * 1000


@async_test
async def test_request_of_a_member_is_not_kept_in_memory(own_server: RedisServer) -> None:
    """It takes two kilobytes, and is not needed after the answer."""
    async with node(own_server) as (_, server):
        headers = {"X-Mark": "of this test"}
        async with connect(
            url(server, "a"), additional_headers=headers, compression=None
        ) as client:
            await client.ping()
            await client.send("hello")

            def kept() -> list[Any]:
                found = [one for one in gc.get_objects() if type(one) is Request]
                return [
                    one for one in found if one is not client.request and "X-Mark" in one.headers
                ]

            await eventually(lambda: not kept())


@async_test
async def test_frames_sent_ahead_of_the_answer_are_heard(own_server: RedisServer) -> None:
    """A client that does not wait for the answer: its messages are read first."""
    got: list[str] = []

    async def app(pool: Any, connection: Any) -> None:
        connection.on("message", got.append)
        await connection.run()

    async with node(own_server, app=app) as (_, server):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(request("/ws/room?id=a") + masked(TEXT, b"hi"))
            await eventually(lambda: got)
            client.sendall(masked(TEXT, b"ho"))
            await eventually(lambda: got == ["hi", "ho"])
