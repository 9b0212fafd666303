"""Receipts of plain clients of ``serve``: the Pong behind a message, or the answered Close."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from cluster_pool import ClusterPool, Publisher, SendResult, SyncPublisher
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.local.pinging import keep_account
from tests.frame_client import CLOSE, PING, PONG, TEXT, FrameClient
from tests.server.running import node, url
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess

RECEIVED, TIMED_OUT = SendResult.RECEIVED, SendResult.TIMED_OUT
LONG = 60.0
"""Seconds of time-out of a send that must end before."""
SHORT = 0.3

pytestmark = [
    pytest.mark.real,
    pytest.mark.parametrize("own_server", ["valkey"], indirect=True),
]


@contextlib.asynccontextmanager
async def frames(
    redis: RedisServer, **options: Any
) -> AsyncIterator[tuple[ClusterPool, Publisher, FrameClient]]:
    """A node, a publisher, and a client of single frames with the id ``c``."""
    async with (
        node(redis, **options) as (pool, server),
        Publisher(redis.url) as publisher,
        FrameClient.connect(url(server, "c")) as client,
    ):
        yield pool, publisher, client


def send(
    pool: ClusterPool | Publisher, message: str = "m", timeout: float = LONG
) -> "asyncio.Task[SendResult]":
    return asyncio.create_task(pool.send("room", "c", message, confirm="client", timeout=timeout))


@async_test
async def test_client_receives_before_its_application_reads(own_server: RedisServer) -> None:
    """From the node itself and from a publisher; text, JSON, and binary."""
    async with (
        node(own_server) as (pool, server),
        Publisher(own_server.url) as publisher,
        connect(url(server, "c")) as client,
    ):
        assert await pool.send("room", "c", "1", confirm="client") is RECEIVED
        assert await publisher.send("room", "c", b"2", confirm="client") is RECEIVED
        assert await publisher.send_json("room", "c", [3], confirm="client") is RECEIVED
        with SyncPublisher(own_server.url) as sync:
            sent = await asyncio.to_thread(sync.send, "room", "c", "4", confirm="client")
            assert sent is RECEIVED
        assert [await client.recv() for _ in range(4)] == ["1", b"2", "[3]", "4"]
        absent = await publisher.send("room", "nobody", "", confirm="client")
        assert absent is SendResult.ABSENT
        with pytest.raises(InvalidValueError):
            await pool.send("room", "c", "", confirm="owner")  # type: ignore[arg-type]


@async_test
async def test_only_the_answer_to_the_ping_counts(own_server: RedisServer) -> None:
    """No Pong, or one of garbage, of the past or of the future, is not a receipt."""
    async with frames(own_server) as (pool, publisher, client):
        for sender in (pool, publisher):
            sent = send(sender)
            assert await client.next() == (TEXT, b"m")
            opcode, payload = await client.next()
            assert opcode == PING
            client.send(PONG)
            client.send(PONG, b"garbage")
            client.send(PONG, payload[::-1])
            following = int.from_bytes(payload) + 1
            client.send(PONG, following.to_bytes(8))
            await asyncio.wait((sent,), timeout=SHORT)
            assert not sent.done()
            client.send(PONG, payload)
            assert await sent is RECEIVED
            late = send(sender, timeout=1)
            assert await client.until(PING) == following.to_bytes(8)
            client.send(PONG, payload)
            assert await late is TIMED_OUT
        assert pool.get_connection("room", "c") is not None


@async_test
async def test_client_that_never_answers(own_server: RedisServer) -> None:
    """Each send ends at its time; what waits is forgotten, and later receipts count again."""
    async with frames(own_server) as (pool, publisher, client):
        for _ in range(40):  # more than pings may be unanswered
            assert await send(pool, timeout=0.02) is TIMED_OUT
        assert await send(publisher, timeout=SHORT) is TIMED_OUT
        connection = pool.get_connection("room", "c")
        assert connection is not None
        await eventually(lambda: not waiting(connection))
        sent = send(publisher, "last")
        while (await client.next()) != (TEXT, b"last"):
            pass
        client.send(PONG, await client.until(PING))
        assert await sent is RECEIVED


def waiting(connection: Any) -> int:
    return int(connection._receipts.waiting)


@async_test
async def test_later_pong_answers_earlier_pings(own_server: RedisServer) -> None:
    """A client may answer the last of several pings only."""
    async with frames(own_server) as (pool, publisher, client):
        first = send(publisher)
        await client.until(PING)
        second = send(pool)
        client.send(PONG, await client.until(PING))
        assert [await first, await second] == [RECEIVED, RECEIVED]


@async_test
async def test_client_that_stops_reading(own_server: RedisServer) -> None:
    """A library that reads only when its application does answers nothing until then."""
    async with (
        node(own_server) as (pool, server),
        Publisher(own_server.url) as publisher,
        connect(url(server, "c"), max_queue=1) as client,
    ):
        results = []
        while TIMED_OUT not in results:
            results.append(await send(publisher, timeout=SHORT))
        assert await send(pool, timeout=SHORT) is TIMED_OUT
        sent = send(publisher, "last")
        while await client.recv() != "last":
            pass
        assert await sent is RECEIVED


@async_test
async def test_thousand_sends_share_few_pings(own_server: RedisServer) -> None:
    """One ping goes behind all messages of a tick."""
    async with frames(own_server) as (pool, publisher, client):
        for sender in (pool, publisher):
            sends = [send(sender, str(i)) for i in range(1000)]
            texts = pings = opcode = 0
            while texts < 1000 or opcode != PING:
                opcode, payload = await client.next()
                texts += opcode == TEXT
                if opcode == PING:
                    pings += 1
                    client.send(PONG, payload)
            assert set(await asyncio.gather(*sends)) == {RECEIVED}
            assert pings < 100


@async_test
async def test_answers_to_our_pings_are_no_noise(own_server: RedisServer) -> None:
    """More pongs per second than frames of no message are allowed; unasked ones are noise."""
    async with (
        node(own_server) as (pool, server),
        connect(url(server, "c"), max_queue=None) as client,
    ):
        for _ in range(3000):
            assert await pool.send("room", "c", "m", confirm="client") is RECEIVED
        assert len([await client.recv() for _ in range(3000)]) == 3000
        for _ in range(3000):
            await client.pong(b"unasked")
        await client.wait_closed()
        assert client.close_code == 1008
        assert pool.statistics()["inbound_floods"] == 1


@async_test
async def test_five_hundred_clients(own_server: RedisServer) -> None:
    """Each has a receipt of its own, also with compression."""
    async with (
        node(own_server, compression=True) as (_, server),
        Publisher(own_server.url) as publisher,
        contextlib.AsyncExitStack() as stack,
    ):
        clients = [
            await stack.enter_async_context(connect(url(server, str(i)))) for i in range(500)
        ]
        sends = [
            publisher.send("room", str(i), "hello " * 50, confirm="client", timeout=LONG)
            for i in range(500)
        ]
        assert set(await asyncio.gather(*sends)) == {RECEIVED}
        assert {await client.recv() for client in clients} == {"hello " * 50}


# -- ends ----------------------------------------------------------------------------------


@async_test
async def test_close_behind_the_message(own_server: RedisServer) -> None:
    """The ping goes ahead of the Close, whatever code the client answers."""
    for code in (4000, 1000):
        async with frames(own_server) as (_, publisher, client):
            sent = asyncio.create_task(
                publisher.send_then_close("room", "c", "bye", 4000, confirm="client", timeout=LONG)
            )
            assert await client.next() == (TEXT, b"bye")
            opcode, payload = await client.next()
            assert opcode == PING
            assert await client.next() == (CLOSE, (4000).to_bytes(2))
            client.send(PONG, payload)
            client.send(CLOSE, code.to_bytes(2))
            assert await sent is RECEIVED


@async_test
async def test_answered_close_without_a_pong(own_server: RedisServer) -> None:
    """Our own code proves it; a code that the client may send by itself does not."""
    for ours, answer, result in (
        (4000, 4000, RECEIVED),
        (1012, 1012, RECEIVED),
        (4000, 1000, TIMED_OUT),
        (1000, 1000, TIMED_OUT),
    ):
        async with frames(own_server) as (pool, publisher, client):
            sent = send(publisher)
            assert await client.until(PING)
            closing = asyncio.create_task(
                pool.close("room", "c", ours, confirm="client", timeout=LONG)
            )
            await client.until(CLOSE)
            client.send(CLOSE, answer.to_bytes(2))
            assert [await sent, await closing] == [result, result]


@async_test
async def test_client_that_leaves_in_between(own_server: RedisServer) -> None:
    """By a Close of its own, the end of the stream, or a reset: not known, and said at once."""
    for leave in (
        lambda client: client.send(CLOSE, (1000).to_bytes(2)),
        lambda client: client.end(),
        lambda client: client.reset(),
    ):
        async with frames(own_server) as (pool, publisher, client):
            sends = [send(pool), send(publisher)]
            await client.until(PING)
            await client.until(PING)
            leave(client)
            assert [await one for one in sends] == [TIMED_OUT, TIMED_OUT]


@async_test
async def test_owner_that_is_killed(own_server: RedisServer) -> None:
    """The send ends at its time, and nothing is claimed."""
    with NodeProcess(own_server.url, "--node-id", "one") as one:
        at = f"ws://127.0.0.1:{one.port}/ws/room?id=c"
        async with Publisher(own_server.url) as publisher, FrameClient.connect(at) as client:
            sent = send(publisher, timeout=1)
            assert await client.until(PING)
            one.signal(signal.SIGKILL)
            assert await sent is TIMED_OUT


@async_test
async def test_node_that_stops(own_server: RedisServer) -> None:
    """Its clients answer the Close: what was sent before is received."""
    async with (
        Publisher(own_server.url) as publisher,
        node(own_server) as (pool, server),
        FrameClient.connect(url(server, "c")) as client,
    ):
        sends = [send(pool), send(publisher)]
        await client.until(PING)
        await client.until(PING)
        stopping = asyncio.create_task(server.stop())
        client.send(CLOSE, await client.until(CLOSE))
        assert await sends[0] is RECEIVED
        assert await sends[1] is RECEIVED
        await stopping


@async_test
async def test_node_without_receipts(own_server: RedisServer) -> None:
    """Behind a proxy that answers in the place of its clients: no ping is sent."""
    with NodeProcess(own_server.url, "--node-id", "one", "--no-receipts") as one:
        at = f"ws://127.0.0.1:{one.port}/ws/room?id=c"
        async with Publisher(own_server.url) as publisher, FrameClient.connect(at) as client:
            assert await send(publisher, "a") is SendResult.DELIVERED
            assert await send(publisher, "b") is SendResult.DELIVERED
            assert [await client.next() for _ in range(2)] == [(TEXT, b"a"), (TEXT, b"b")]


@async_test
async def test_keepalive_brings_the_receipt_of_an_account(own_server: RedisServer) -> None:
    """Its pings have no payload when nothing is missing."""
    async with frames(own_server, ping_interval=1.0) as (pool, _, client):
        connection = pool.get_connection("room", "c")
        assert connection is not None
        account = keep_account(connection)
        while await client.until(PING):
            client.send(PONG)
        client.send(PONG)
        await connection.send("m")
        assert await client.next() == (TEXT, b"m")
        client.send(PONG)
        payload = await client.until(PING)
        assert payload
        client.send(PONG, payload)
        await eventually(lambda: account.received == (1, 1))
