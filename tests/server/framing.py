"""Nodes in the process of a test, and clients of them that speak ``cluster-pool.v1``."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from cluster_pool import ClusterPool
from cluster_pool.server.node import NodeServer
from cluster_pool.testing import FAST

V1: Any = "cluster-pool.v1"
RULES = ("room*=publish,info",)
OK = {"ok": True}
POOL_OPTIONS = ("limits", "secret", "timing", "on_conflict", "history")


@contextlib.asynccontextmanager
async def node(
    redis: Any, name: str = "a", **options: Any
) -> AsyncIterator[tuple[ClusterPool, NodeServer]]:
    """A pool and its listener."""
    given = {option: options.pop(option) for option in POOL_OPTIONS if option in options}
    pool = ClusterPool(redis.url, node_id=name, **{"timing": FAST, **given})
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
        """The answer to a request, without ref and reason; messages before it are dropped."""
        self._ref += 1
        await self.socket.send(json.dumps({**request, "ref": self._ref}))
        while True:
            answer = await self.read()
            if answer.get("ref") == self._ref:
                del answer["ref"]
                if "error" in answer:
                    assert answer.pop("reason")
                return answer

    async def error(self, **request: Any) -> str:
        """The code of a request that is refused."""
        answer = await self.ask(**request)
        assert list(answer) == ["error"], answer
        return str(answer["error"])

    async def closed(self) -> tuple[int, str]:
        """The code and the reason of the close that comes behind the next messages."""
        with contextlib.suppress(ConnectionClosed):
            async for _ in self.socket:
                pass
        return self.socket.close_code or 0, self.socket.close_reason or ""


@contextlib.asynccontextmanager
async def framed(
    server: NodeServer, id: str, namespace: str = "room", query: str = "", **options: Any
) -> AsyncIterator[Framed]:
    """A client; the options are those of ``connect``."""
    options = {"compression": None, "subprotocols": [V1], **options}
    async with connect(url(server, id, namespace, query), **options) as socket:
        assert socket.subprotocol == V1
        first = json.loads(await socket.recv())
        assert list(first) == ["welcome"]
        yield Framed(socket, first["welcome"])
