"""Who has left, or broken the protocol, is no member, whatever becomes of its socket."""

import asyncio
import dataclasses

import pytest

from cluster_pool import ClusterPool, SendResult
from cluster_pool.local.closing import is_gone
from cluster_pool.testing import FAST
from tests.server.test_node import node, url
from tests.servers import RedisServer
from tests.stubborn import stubborn
from tests.support import async_test, eventually

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
"""What a client says, and the code with which its connection has then ended."""


@pytest.mark.parametrize("how", ENDS)
@async_test
async def test_who_has_left_and_keeps_its_socket_is_no_member(
    own_server: RedisServer, how: str
) -> None:
    """Sends say ABSENT at once, here and from elsewhere, and the socket is cut in its time."""
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
async def test_who_is_closing_in_two_rounds_of_pings_is_cut(own_server: RedisServer) -> None:
    """Long before the time that a close handshake may take."""
    timing = dataclasses.replace(FAST, close=60.0)
    async with (
        node(own_server, timing, ping_interval=0.3) as (pool, server),
        stubborn(url(server, "a")) as client,
    ):
        await eventually(lambda: pool.get_connection("room", "a"))
        connection = pool.get_connection("room", "a")
        assert connection is not None
        client.writer.write(ENDS["close"][0])
        await eventually(lambda: is_gone(connection))
        assert pool.statistics()["forced_closes"] == 1


@async_test
async def test_what_was_said_before_the_end_is_heard(own_server: RedisServer) -> None:
    """The app takes it although the connection is closing, and then ends."""
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
