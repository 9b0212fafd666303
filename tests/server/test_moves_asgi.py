"""Plain clients of ASGI applications that move from node to node lose nothing, either."""

import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from cluster_pool import ClusterPool
from cluster_pool.testing import FAST
from tests.server.moving import ROOM, ROOMS, Mover, Sender
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tests.transports.served import QUIET, served

pytestmark = [
    pytest.mark.real,
    pytest.mark.parametrize("own_server", ["valkey"], indirect=True),
    *QUIET,
]


class Place(NamedTuple):
    """A node behind uvicorn."""

    port: int
    pool: ClusterPool


@contextlib.asynccontextmanager
async def place(redis: RedisServer, name: str, ws: str) -> AsyncIterator[Place]:
    """A node in an application of its own."""
    async with ClusterPool(redis.url, node_id=name, history=ROOMS, timing=FAST) as pool:

        async def endpoint(websocket: WebSocket) -> None:
            id = websocket.query_params["id"]
            async with pool.accept(websocket, namespace=ROOM, id=id) as connection:
                await connection.run()

        app = Starlette(routes=[WebSocketRoute("/ws/{room}", endpoint)])
        async with served(app, ws) as url:
            yield Place(urlsplit(url).port or 0, pool)


@pytest.mark.parametrize("ws", ["cluster_pool.uvicorn:Protocol", "websockets-sansio", "wsproto"])
@async_test
async def test_clients_of_an_application_lose_nothing(own_server: RedisServer, ws: str) -> None:
    """Behind our protocol each gets each message once. Where the server hides what its client has
    answered, all is repeated that was sent since it was first there."""
    async with place(own_server, "a", ws) as one, place(own_server, "b", ws) as two:
        movers = [Mover(f"client-{number}", [one, two]) for number in range(5)]
        await eventually(lambda: one.pool.statistics()["connections"] == 5)
        sender = Sender(lambda text: two.pool.broadcast_message(ROOM, text))
        for _ in range(4):
            for mover in movers:
                before = mover.moves
                await eventually(lambda m=mover: one.pool.close(ROOM, m.id, 1012, "moving"))
                await eventually(lambda m=mover, b=before: m.moves > b, 20)
        sent = await sender.end()
        await eventually(lambda: all(mover.got[-1:] == sent[-1:] for mover in movers), 20)
        for mover in movers:
            if ws.startswith("cluster_pool"):
                assert mover.got == sent
            assert [text for at, text in enumerate(mover.got) if text not in mover.got[:at]] == sent
            await mover.end()
        assert one.pool.statistics()["forced_closes"] == 0
