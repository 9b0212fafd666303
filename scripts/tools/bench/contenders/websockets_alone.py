"""``websockets.broadcast`` in one process: no Redis, no other node, nobody addressed by id.

Run as ``python -m tools.bench.contenders.websockets_alone LOOP NOTHING GATE``.
"""

import asyncio
import sys
from collections.abc import Sequence

from websockets.asyncio.server import ServerConnection, broadcast, serve

from tools.bench.gate import Opened
from tools.bench.sender import Sender
from tools.harness.obeying import answer, obey_object


async def main(gate: int) -> None:
    """Run until standard input ends."""
    connections: set[ServerConnection] = set()

    async def handle(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async def to_all(messages: Sequence[str]) -> int:
        for message in messages:
            broadcast(connections, message)
        return 0

    async with serve(handle, "127.0.0.1", 0, compression=None) as server:
        answer({"port": server.sockets[0].getsockname()[1]})
        await obey_object(Sender(to_all, None, Opened(gate)))
        for connection in connections:
            connection.transport.abort()


if __name__ == "__main__":
    loop, _, gate_fd = sys.argv[1:]
    if loop == "uvloop":
        import uvloop

        uvloop.run(main(int(gate_fd)))
    else:
        asyncio.run(main(int(gate_fd)))
