"""``websockets.broadcast`` in one process: no Redis, no other node, nobody addressed by id.

Run as ``python -m tools.bench.contenders.websockets_alone LOOP GATE``.
"""

import asyncio
import sys

from websockets.asyncio.server import ServerConnection, broadcast, serve

from tools.bench.children import Opened
from tools.bench.contenders.sender import Sender


async def main(gate: int) -> None:
    """Run until standard input ends."""
    connections: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async def to_all(message: str) -> None:
        broadcast(connections, message)

    server = await serve(handle, "127.0.0.1", 0, compression=None)
    await Sender(to_all, None, Opened(gate)).obey(server.sockets[0].getsockname()[1])
    server.close()
    for connection in connections:
        connection.transport.abort()
    await server.wait_closed()


if __name__ == "__main__":
    if sys.argv[1] == "uvloop":
        import uvloop

        uvloop.run(main(int(sys.argv[2])))
    else:
        asyncio.run(main(int(sys.argv[2])))
