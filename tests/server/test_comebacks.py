"""Plain clients that come back before their former connection has ended, in each way there is."""

import asyncio
import contextlib
import socket
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cluster_pool import ClusterPool, Connection, History, Limits, Timing
from cluster_pool.cluster import handovers, positions
from cluster_pool.server.node import NodeServer
from cluster_pool.testing import FakeWebSocket
from tests.frame_client import CLOSE, TEXT, FrameClient
from tests.server.framing import node
from tests.server.running import HANDSHAKE, KEY
from tests.servers import RedisServer
from tests.support import async_test, eventually

pytestmark = pytest.mark.real

ROOM = "room:7"
ROOMS = {"room:*": History()}
LONG = 60.0
"""Seconds of patience with a former owner, which no test may wait for."""


def url(server: NodeServer, id: str = "alice") -> str:
    return f"ws://127.0.0.1:{server.port}/ws/{ROOM}?id={id}"


async def come(server: NodeServer) -> ClientConnection:
    return await connect(url(server))


def recovered_of(pool: ClusterPool) -> bool | None:
    connection = pool.get_connection(ROOM, "alice")
    return None if connection is None else connection.recovered


def raw_client(server: NodeServer) -> socket.socket:
    """A client that is open and then does nothing by itself: it answers no Close."""
    client = socket.create_connection(("127.0.0.1", server.port))
    client.sendall(
        HANDSHAKE.format(id="alice", key=KEY).replace("/ws/room", f"/ws/{ROOM}").encode()
    )
    return client


async def rest(socket: ClientConnection) -> list[str | bytes]:
    """The messages before the end of a connection."""
    got: list[str | bytes] = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            got.append(await socket.recv())
    return got


@pytest.mark.parametrize("same", [True, False])
@async_test
async def test_a_client_that_takes_its_own_id_over_gets_the_rest(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch, same: bool
) -> None:
    """At the same node, too; the former connection has answered its Close at once."""
    monkeypatch.setattr(handovers, "PATIENCE", LONG)
    async with (
        node(own_server, "a", history=ROOMS) as (one, server),
        node(own_server, "b", history=ROOMS) as (_, other),
    ):
        got: list[str | bytes] = []
        former = await connect(url(server))
        for number in range(40):
            await one.broadcast_message(ROOM, str(number))
        got += [await former.recv() for _ in range(40)]
        for round in range(5):
            sending = asyncio.create_task(one.broadcast_message(ROOM, f"r{round}"))
            async with asyncio.timeout(LONG / 2):
                latter = await connect(url(server if same or round % 2 else other))
            await sending
            await one.broadcast_message(ROOM, f"l{round}")
            got += await rest(former)
            assert former.close_code == 4409
            former = latter
        await one.broadcast_message(ROOM, "end")
        async with asyncio.timeout(20):
            while got[-1] != "end":
                got.append(await former.recv())
        expected = [str(number) for number in range(40)]
        expected += [f"{kind}{round}" for round in range(5) for kind in "rl"]
        assert got == [*expected, "end"]
        await former.close()


@async_test
async def test_a_hold_that_overflows_is_no_hole(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client is closed while its past is read, comes back, and is told that it is not whole,
    as more than fits into an outbox was sent meanwhile."""
    monkeypatch.setattr(positions, "TOLD_WITHIN", 2.0)
    monkeypatch.setattr(handovers, "PATIENCE", LONG)
    limits = Limits(outbox_bytes=20_000)
    async with node(own_server, "a", history=ROOMS, limits=limits) as (pool, server):
        with raw_client(server):
            await eventually(lambda: pool.get_connection(ROOM, "alice"))
            first = pool.get_connection(ROOM, "alice")
            coming = asyncio.create_task(come(server))
            await eventually(lambda: pool.get_connection(ROOM, "alice") not in (first, None))
            for _ in range(30):
                await pool.broadcast_message(ROOM, "x" * 1000)
            second = await coming
            got = await rest(second)
            assert second.close_code == 1013
            async with connect(url(server)) as third:
                await eventually(lambda: recovered_of(pool) is not None)
                assert recovered_of(pool) is (len(got) == 30)
                await pool.broadcast_message(ROOM, "live")
                assert await third.recv() == "live"


@async_test
async def test_a_node_that_stops_stores_what_late_answers_prove(own_server: RedisServer) -> None:
    """It waits for them as long as a close may last, and releases the ids then."""
    timing = Timing(timeout=0.5, close=LONG)
    async with node(own_server, "b", history=ROOMS) as (other, _):
        async with node(own_server, "a", history=ROOMS, timing=timing) as (pool, server):
            async with FrameClient.connect(url(server)) as client:
                for number in range(5):
                    await pool.broadcast_message(ROOM, str(number))
                    await client.until(TEXT)
                stopping = asyncio.create_task(pool.stop())
                code = await client.until(CLOSE)
                await asyncio.sleep(1.5)  # longer than a call to Redis may take
                assert await other.count(ROOM) == 1
                client.send(CLOSE, code)
                await eventually(lambda: emptied(other))
            await stopping
        connection = Connection("alice", ROOM, FakeWebSocket())
        await other.broadcast_message(ROOM, "missed")
        await other.new_connection(connection)
        assert await connection.websocket.wait_sent(1) == ["missed"]
        assert connection.recovered


async def emptied(pool: ClusterPool) -> bool:
    return await pool.count(ROOM) == 0


@async_test
async def test_a_parked_id_is_free_as_soon_as_its_client_has_answered(
    own_server: RedisServer,
) -> None:
    """Where ids are not taken over, too; one that does not answer keeps its id until it is cut."""
    options: Any = {"history": ROOMS, "on_conflict": "reject"}
    async with (
        node(own_server, "a", **options) as (one, server),
        node(own_server, "b", **options) as (two, other),
    ):
        first = await connect(url(server))
        await two.broadcast_message(ROOM, "had")
        await two.close(ROOM, "alice", 1012, "moving")
        assert await rest(first) == ["had"]
        async with connect(url(other)) as second:
            assert recovered_of(two)
            await two.broadcast_message(ROOM, "live")
            assert await second.recv() == "live"
        assert one.statistics()["forced_closes"] == 0
