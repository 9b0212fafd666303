"""Clients that speak ``cluster-pool.v1``: real nodes, real sockets."""

import base64
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect

from cluster_pool import ClusterPool, Limits
from cluster_pool.server.node import NodeServer
from cluster_pool.testing import FAST
from tests.servers import RedisServer
from tests.support import async_test

pytestmark = pytest.mark.real

V1: Any = "cluster-pool.v1"
RULES = ("room*=publish,info",)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file."""
    with RedisServer("valkey") as server:
        yield server


@contextlib.asynccontextmanager
async def node(
    redis: RedisServer, name: str = "a", limits: Limits | None = None, **options: Any
) -> AsyncIterator[tuple[ClusterPool, NodeServer]]:
    """A pool and its listener."""
    secret = options.pop("secret", None)
    pool = ClusterPool(redis.url, node_id=name, timing=FAST, limits=limits, secret=secret)
    server = NodeServer(pool, port=0, **{"namespace_rules": RULES, **options})
    await pool.start()
    try:
        await server.start()
        yield pool, server
    finally:
        await server.stop()


def url(server: NodeServer, id: str, namespace: str = "room", query: str = "") -> str:
    return f"ws://127.0.0.1:{server.port}/ws/{namespace}?id={id}{query}"


class Framed:
    """A client of ``cluster-pool.v1`` that has read its welcome."""

    def __init__(self, socket: ClientConnection, welcome: dict[str, Any]) -> None:
        self.socket = socket
        self.welcome = welcome
        self._ref = 0

    async def read(self) -> dict[str, Any]:
        """The next frame."""
        frame: dict[str, Any] = json.loads(await self.socket.recv())
        return frame

    async def ask(self, **request: Any) -> dict[str, Any]:
        """The answer to a request, without its ref; no other frame comes before it."""
        self._ref += 1
        await self.socket.send(json.dumps({**request, "ref": self._ref}))
        answer = await self.read()
        assert answer.pop("ref", None) == self._ref, answer
        return answer


@contextlib.asynccontextmanager
async def framed(server: NodeServer, id: str, *where: str, **options: Any) -> AsyncIterator[Framed]:
    options = {"compression": None, "subprotocols": [V1], **options}
    async with connect(url(server, id, *where), **options) as socket:
        assert socket.subprotocol == V1
        first = json.loads(await socket.recv())
        yield Framed(socket, first["welcome"])


OK = {"ok": True}


@async_test
async def test_a_broadcast_reaches_clients_of_both_kinds_with_its_position(
    redis: RedisServer,
) -> None:
    async with (
        node(redis) as (pool, server),
        framed(server, "json") as client,
        connect(url(server, "raw")) as raw,
    ):
        assert raw.subprotocol is None
        assert client.welcome == {"id": "json", "ns": "room"}
        await pool.broadcast_message("room", 'he said "ä"')
        await pool.broadcast_message("room", b"\0\1")
        first, second = await client.read(), await client.read()
        epoch, _, number = first.pop("p").partition(".")
        assert first == {"ns": "room", "m": 'he said "ä"'}
        assert second == {
            "ns": "room",
            "b": base64.b64encode(b"\0\1").decode(),
            "p": f"{epoch}.{int(number) + 1}",
        }
        assert await raw.recv() == 'he said "ä"'
        assert await raw.recv() == b"\0\1"


@async_test
async def test_messages_to_one_client_have_no_position(redis: RedisServer) -> None:
    async with node(redis) as (pool, server), framed(server, "one") as client:
        assert await pool.send("room", "one", "here")
        assert await client.read() == {"ns": "room", "m": "here"}
        with redis.sync_client() as plain:
            plain.publish("cluster_pool:{room}", "plain")
        assert await client.read() == {"ns": "room", "m": "plain"}


@async_test
async def test_published_messages_name_their_client_on_every_node(redis: RedisServer) -> None:
    async with (
        node(redis) as (_, first),
        node(redis, "b") as (_, second),
        framed(first, "writer") as writer,
        framed(second, "reader") as reader,
        connect(url(second, "raw")) as raw,
    ):
        await writer.socket.send('{"publish": "room", "m": "hi", "ref": 1}')
        got = [await writer.read(), await writer.read()]
        message = next(frame for frame in got if "ns" in frame)
        assert {"ref": 1, "ok": True} in got
        assert message.pop("p")
        assert message == {"ns": "room", "m": "hi", "from": {"id": "writer"}}
        assert (await reader.read())["from"] == {"id": "writer"}
        assert await raw.recv() == "hi"


@async_test
async def test_a_client_joins_and_leaves(redis: RedisServer) -> None:
    async with node(redis) as (pool, server), framed(server, "one") as client:
        assert await client.ask(join="room:7") == OK
        assert await pool.send("room:7", "one", "there")
        assert await client.read() == {"ns": "room:7", "m": "there"}
        assert await client.ask(leave="room:7") == OK
        assert not await pool.send("room:7", "one", "gone")
