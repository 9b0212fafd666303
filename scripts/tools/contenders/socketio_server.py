"""python-socketio: an AsyncServer with an AsyncRedisManager; everyone in a room named by its id."""

import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

import socketio

from tools.contenders.served import RETURNED, Served, tuning
from tools.contenders.uvicorn_server import serve

# redis-py refuses the 101st command at once of a default pool, and the manager then drops the
# message with a line in the log.
OPTIONS = {"max_connections": 1_000_000}


@contextlib.asynccontextmanager
async def served(redis: str, *, tuned: bool) -> AsyncIterator[Served]:
    """A node."""
    server = socketio.AsyncServer(
        async_mode="asgi",
        client_manager=socketio.AsyncRedisManager(
            redis, redis_options={**OPTIONS, **tuning(tuned)}
        ),
        http_compression=False,
        transports=["websocket"],
        logger=logging.getLogger("socketio"),
    )

    @server.event  # type: ignore[untyped-decorator]  # socketio has no types
    async def connect(sid: str, environ: dict[str, Any]) -> None:
        await server.enter_room(sid, parse_qs(environ["QUERY_STRING"])["id"][0])

    async def to_all(message: str) -> str:
        await server.emit("message", message)
        return RETURNED

    async def to_one(id: str, message: str) -> str:
        await server.emit("message", message, to=id)
        return RETURNED

    async with serve(socketio.ASGIApp(server)) as port:
        yield Served(port, to_all, to_one)
