"""A FastAPI application under an ASGI server, with a pool or as the framework's manual has it.

Run as ``python -m tools.bench.app_node REDIS LOOP SERVER POOL GATE``. The server is ``hypercorn``,
``granian``, ``aiohttp`` (with an application of its own), or a name that uvicorn's ``--ws`` takes.
Without a pool it is a set of WebSockets, and a loop that awaits ``send_text`` for each.
"""

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, WebSocket

from cluster_pool import ClusterPool, ClusterPoolError
from tools.bench.gate import Opened
from tools.bench.node import NAMESPACE, Commands
from tools.bench.sender import Sender
from tools.harness.internals import loop_factory
from tools.harness.obeying import answer, obey_object
from tools.harness.ports import HOST, free_port

HYPERCORN, GRANIAN, AIOHTTP = "hypercorn", "granian", "aiohttp"


class Bare(Sender):
    """The commands without a pool."""

    def __init__(self, sockets: set[WebSocket], gate: Opened) -> None:
        super().__init__(self._send_all, None, gate)
        self._sockets = sockets

    async def _send_all(self, messages: Sequence[str]) -> int:
        for message in messages:
            for websocket in list(self._sockets):
                await websocket.send_text(message)
        return 0

    async def count(self) -> int:
        """How many connections there are."""
        return len(self._sockets)

    async def collect(self) -> None:
        """Collect garbage, so that memory is what is held."""
        gc.collect()


def application(pool: ClusterPool | None, sockets: set[WebSocket]) -> FastAPI:
    """An endpoint that holds its client and reads what it says."""
    app = FastAPI()

    @app.websocket("/")
    async def endpoint(websocket: WebSocket, id: str) -> None:
        if pool is None:
            await websocket.accept()
            sockets.add(websocket)
            async for _ in websocket.iter_text():
                pass
            sockets.discard(websocket)
            return
        with contextlib.suppress(ClusterPoolError):
            async with pool.accept(websocket, namespace=NAMESPACE, id=id) as connection:
                async for _ in connection:
                    pass

    return app


async def begin(app: Any, server: str) -> tuple[int, asyncio.Task[None]]:
    """Serve an application; its port, and the task that does it."""
    port = free_port()
    if server == HYPERCORN:
        running = _hypercorn(app, port)
    elif server == GRANIAN:
        running = _granian(app, port)
    elif server == AIOHTTP:
        running = _aiohttp(app, port)
    else:
        running = _uvicorn(app, port, server)
    serving = asyncio.create_task(running)
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(HOST, port)
                writer.close()
                break
            await asyncio.sleep(0.02)
    return port, serving


def _uvicorn(app: Any, port: int, ws: str) -> Any:
    import uvicorn

    config = uvicorn.Config(app, HOST, port, lifespan="off", log_config=None, ws=ws)
    return uvicorn.Server(config).serve()


def _hypercorn(app: Any, port: int) -> Any:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind, config.loglevel = [f"{HOST}:{port}"], "CRITICAL"
    return serve(app, config, shutdown_trigger=asyncio.Event().wait)


def _granian(app: Any, port: int) -> Any:
    from granian.constants import Interfaces
    from granian.server.embed import Server

    options: dict[str, Any] = {"interface": Interfaces.ASGINL, "log_enabled": False}
    return Server(app, address=HOST, port=port, **options).serve()


async def _aiohttp(pool: ClusterPool, port: int) -> None:
    from aiohttp import web

    async def endpoint(request: web.Request) -> web.WebSocketResponse:
        websocket = web.WebSocketResponse(compress=False)
        pair, id = (request, websocket), request.query["id"]
        with contextlib.suppress(ClusterPoolError):
            async with pool.accept(pair, namespace=NAMESPACE, id=id) as connection:
                async for _ in connection:
                    pass
        return websocket

    app = web.Application()
    app.router.add_get("/", endpoint)
    await web._run_app(app, host=HOST, port=port, print=None, handle_signals=False, access_log=None)


async def main(redis: str, server: str, pooled: bool, gate: int) -> None:
    """Run until standard input ends, and end without goodbyes to the clients."""
    sockets: set[WebSocket] = set()
    pool = ClusterPool(redis) if pooled else None
    if pool is not None:
        await pool.start()
        await pool.wait_ready()
    app = pool if server == AIOHTTP else application(pool, sockets)
    port, _serving = await begin(app, server)
    opened = Opened(gate)
    answer({"port": port})
    await obey_object(Bare(sockets, opened) if pool is None else Commands(pool, opened))
    os._exit(0)


if __name__ == "__main__":
    _, redis_url, loop_name, server_name, with_pool, gate_fd = sys.argv
    with asyncio.Runner(loop_factory=loop_factory(loop_name)) as runner:
        runner.run(main(redis_url, server_name, bool(with_pool), int(gate_fd)))
