"""``websockets.broadcast`` in one process: no Redis, no other node, nobody addressed by id."""

import contextlib
from collections.abc import AsyncIterator

from websockets.asyncio.server import ServerConnection, broadcast, serve

from tools.contenders.served import RETURNED, Served
from tools.harness.ports import HOST


@contextlib.asynccontextmanager
async def served(redis: str, *, tuned: bool) -> AsyncIterator[Served]:
    """A node."""
    connections: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async def to_all(message: str) -> str:
        broadcast(connections, message)
        return RETURNED

    async with serve(handle, HOST, 0, compression=None) as server:
        yield Served(server.sockets[0].getsockname()[1], to_all)
