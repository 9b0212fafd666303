"""Clients of ``cluster-pool.v1`` learn where messages were missed: real nodes, a real Redis."""

import asyncio
import contextlib
from typing import Any

import pytest
from websockets.asyncio.client import connect

from cluster_pool.exceptions import ClusterPoolError
from tests.server.framing import OK, Framed, framed, node, url
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import in_thread

pytestmark = [
    pytest.mark.real,
    pytest.mark.parametrize("own_server", ["valkey"], indirect=True),
]


class Losses:
    """Collects the losses that a client is told of, in a task that reads its frames."""

    def __init__(self, client: Framed) -> None:
        self.told: list[str] = []
        self.others: list[Any] = []
        self._task = asyncio.create_task(self._read(client))

    async def _read(self, client: Framed) -> None:
        while True:
            frame = await client.read()
            if "lost" in frame:
                assert list(frame) == ["lost"]
                self.told.append(frame["lost"])
            else:
                self.others.append(frame)

    def stop(self) -> None:
        self._task.cancel()


@async_test
async def test_an_interruption_is_told_where_messages_were_missed(own_server: RedisServer) -> None:
    """To those who are there; a message to one member is told at the homes; nobody is closed."""
    async with (
        node(own_server) as (pool, server),
        node(own_server, "b") as (other, _),
        framed(server, "one") as client,
        framed(server, "two", "room2") as neighbour,
        connect(url(server, "raw")) as raw,
    ):
        assert await client.ask(join="room:7") == OK
        assert await client.ask(join="room:8") == OK
        losses, others = Losses(client), Losses(neighbour)

        async def told(namespace: str, *, broadcast: str | None) -> bool:
            own_server.command("CLIENT", "KILL", "TYPE", "pubsub")
            for _ in range(20):
                with contextlib.suppress(ClusterPoolError):
                    if broadcast is None:
                        await other.send("room2", "two", "x")
                    else:
                        await other.broadcast_message(broadcast, "x")
            await eventually(lambda: pool.ready and other.ready, 30)
            return namespace in losses.told

        await eventually(lambda: told("room:7", broadcast="room:7"), 60)
        assert set(losses.told) == {"room:7"}
        assert not others.told
        await eventually(lambda: told("room", broadcast=None), 60)
        assert set(losses.told) == {"room:7", "room"}
        assert set(others.told) == {"room2"}
        await pool.broadcast_message("room", "the end")
        assert await raw.recv() == "the end"
        losses.stop()
        others.stop()


@async_test
async def test_a_redis_that_has_lost_its_counters_is_told_everywhere(
    own_server: RedisServer,
) -> None:
    async with node(own_server) as (pool, server), framed(server, "one") as client:
        assert await client.ask(join="room:7") == OK
        await pool.broadcast_message("room", "x")
        assert (await client.read())["m"] == "x"
        own_server.kill()
        await in_thread(own_server.start)
        assert [await client.read(), await client.read()] == [{"lost": "room"}, {"lost": "room:7"}]
        await eventually(lambda: pool.ready, 30)
        assert await client.ask(publish="room", m="still here") == OK
