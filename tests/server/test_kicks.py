"""A client of ``serve`` that is closed before its handshake is answered, or ignores its Close."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.client import connect

from cluster_pool import ClusterPool, Connection, SendResult
from cluster_pool.testing import FAST, FakeWebSocket
from tests.clusters import Backend, Heard
from tests.server.running import node, url
from tests.servers import RedisServer
from tests.stubborn import stubborn
from tests.support import async_test, eventually
from tools.harness.nodes import close_code

Step = Callable[[ClusterPool, str], Awaitable[object]]


async def _take_over(other: ClusterPool, id: str) -> None:
    await other.new_connection(Connection(id, "room", FakeWebSocket()))


async def _send_then_close(other: ClusterPool, id: str) -> None:
    sent = await other.send_then_close("room", id, "banned", 4000, "out", confirm=True)
    assert sent is SendResult.DELIVERED


async def _close_all(other: ClusterPool, id: str) -> None:
    assert await other.close_all("room", 4000, "out") == 1
    await eventually(lambda: _is_absent(other, id))


async def _is_absent(pool: ClusterPool, id: str) -> bool:
    return await pool.locate("room", id) is None


@pytest.mark.parametrize(
    ("step", "code", "more"),
    [(_send_then_close, 4000, ["banned"]), (_take_over, 4409, []), (_close_all, 4000, [])],
)
@async_test
async def test_client_closed_before_its_handshake_gets_its_messages(
    own_server: RedisServer, step: Step, code: int, more: list[str]
) -> None:
    """DELIVERED is true: messages between claim and answer are written, and then the close."""
    called = []

    async def app(pool: ClusterPool, connection: Connection) -> None:
        called.append(connection)

    patient = replace(FAST, close=10.0)  # a loop that stands still for a second cuts nobody
    async with (
        node(own_server, patient, app=app) as (pool, server),
        ClusterPool(own_server.url, node_id="other", timing=FAST) as other,
    ):
        claim = pool.new_connection

        async def claim_and_more(connection: Connection, **options: Any) -> None:
            await claim(connection, **options)
            sent = await other.send("room", connection.id, "first", confirm=True)
            assert sent is SendResult.DELIVERED
            await step(other, connection.id)
            await eventually(lambda: connection.closed)

        pool.new_connection = claim_and_more  # type: ignore[method-assign]
        for _ in range(3):
            async with connect(url(server, "alice"), compression=None) as alice:
                assert [await alice.recv() for _ in range(1 + len(more))] == ["first", *more]
                assert await close_code(alice) == code
            await other.close("room", "alice")
            await eventually(lambda: _is_absent(other, "alice"))
        assert called == []
        assert pool.statistics()["forced_closes"] == 0


@async_test
async def test_client_that_is_taken_over_publishes_nothing_more(own_server: RedisServer) -> None:
    """It does not answer its Close and goes on sending: none of that is published."""
    async with (
        node(own_server) as (pool, server),
        Backend(own_server).listening("cluster_pool:{room}:inbound") as inbound,
    ):
        async with stubborn(url(server, "alice")) as old:
            old.say("it is me")
            await eventually(lambda: pool.statistics()["connections"])
            texts = [await _next(inbound)]
            async with connect(url(server, "alice")) as new:
                await old.told(4409)
                for number in range(100):
                    old.say(f"I am still alice {number}" + "x" * 20_000)
                await new.send("no, I am")
                texts.append(await _next(inbound))
                await eventually(lambda: old.ended)
                await new.send("at last")
                texts.append(await _next(inbound))
        assert [text[:10] for text in texts] == ["it is me", "no, I am", "at last"]


@async_test
async def test_drained_client_is_heard_until_it_answers_the_close(own_server: RedisServer) -> None:
    """Messages before its own Close are published, as after any close that is no kick."""
    got: list[object] = []

    async def app(pool: ClusterPool, connection: Connection) -> None:
        got.extend([message async for message in connection])

    async with node(own_server, app=app) as (pool, server):
        async with stubborn(url(server, "alice")) as alice:
            await eventually(lambda: pool.statistics()["connections"])
            draining = asyncio.create_task(pool.drain_connections(100, grace=5))
            await alice.told(1012)
            alice.say("one thing more")
            alice.writer.write(b"\x88\x80" + bytes(4))
            await draining
            await eventually(lambda: got)
        assert got == ["one thing more"]


async def _next(inbound: Heard) -> str:
    async with asyncio.timeout(10):
        _, payload = await inbound.get()
        return str(json.loads(payload)["text"])
