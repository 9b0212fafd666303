"""python-socketio: an AsyncServer with an AsyncRedisManager in each process, and a real client."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import socketio
import uvicorn

from tools.chaos.peers.count import BROADCAST, RETURNED
from tools.chaos.peers.side import Ear, Send, tuning

ROOM = "n"


class SocketIO:
    """A :class:`tools.chaos.peers.side.Contender`; ``options`` are the manager's own."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    @asynccontextmanager
    async def sender(self, redis: str, address: str) -> AsyncIterator[Send]:
        """See :class:`Contender`."""
        async with self._served(redis) as (server, _):

            async def send(kind: str, text: str) -> str:
                await server.emit("message", text, to=ROOM if kind == BROADCAST else address)
                return RETURNED

            yield send

    @asynccontextmanager
    async def receiver(self, redis: str, ear: Ear) -> AsyncIterator[str]:
        """See :class:`Contender`."""
        async with self._served(redis) as (_, port):
            connection = socketio.AsyncClient()
            connection.on("message", ear.hear)
            await connection.connect(f"http://127.0.0.1:{port}", transports=["websocket"])
            yield connection.get_sid()
            await connection.disconnect()

    @asynccontextmanager
    async def _served(self, redis: str) -> AsyncIterator[tuple[Any, int]]:
        """A server on a port, whose clients are all in the room."""
        server = socketio.AsyncServer(
            async_mode="asgi",
            client_manager=socketio.AsyncRedisManager(redis, **self._options),
            logger=logging.getLogger("socketio"),
        )

        @server.event  # type: ignore[untyped-decorator]  # socketio has no types
        async def connect(sid: str, environ: dict[str, Any]) -> None:
            await server.enter_room(sid, ROOM)

        config = uvicorn.Config(socketio.ASGIApp(server), port=0, log_config=None)
        web = uvicorn.Server(config)
        serving = asyncio.create_task(web.serve())
        while not web.started:  # noqa: ASYNC110  # uvicorn has nothing to wait for
            await asyncio.sleep(0.01)
        yield server, web.servers[0].sockets[0].getsockname()[1]
        web.should_exit = True
        await serving


SOCKETIO = SocketIO()
TUNED = SocketIO(redis_options=tuning())
