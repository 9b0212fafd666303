"""python-socketio: an AsyncServer with an AsyncRedisManager; everyone in a room named by its id.

Run as ``python -m tools.bench.contenders.socketio_python REDIS GATE``.
"""

import sys
from typing import Any
from urllib.parse import parse_qs

import socketio
import uvloop

from tools.bench.contenders.uvicorn_server import serve_and_send

# redis-py refuses the 101st command at once of a default pool, and the manager then drops the
# message with a line in the log.
OPTIONS = {"max_connections": 1_000_000}


async def main(redis: str, gate: int) -> None:
    """Run one server until standard input ends."""
    server = socketio.AsyncServer(
        async_mode="asgi",
        client_manager=socketio.AsyncRedisManager(redis, redis_options=OPTIONS),
        http_compression=False,
        transports=["websocket"],
    )

    @server.event  # type: ignore[untyped-decorator]  # socketio has no types
    async def connect(sid: str, environ: dict[str, Any]) -> None:
        await server.enter_room(sid, parse_qs(environ["QUERY_STRING"])["id"][0])

    async def to_all(message: str) -> None:
        await server.emit("message", message)

    async def to_one(id: str, message: str) -> None:
        await server.emit("message", message, to=id)

    await serve_and_send(socketio.ASGIApp(server), to_all, to_one, gate)


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
