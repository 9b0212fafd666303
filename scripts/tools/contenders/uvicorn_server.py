"""Uvicorn, with the WebSocket implementation that it chooses itself."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from tools.harness.ports import HOST


@contextlib.asynccontextmanager
async def serve(app: Any) -> AsyncIterator[int]:
    """Serve an ASGI application on a free port, which it gives."""
    config = uvicorn.Config(
        app, HOST, 0, lifespan="off", log_config=None, ws_per_message_deflate=False
    )
    web = uvicorn.Server(config)
    serving = asyncio.create_task(web.serve())
    while not web.started:  # noqa: ASYNC110  # uvicorn has nothing to wait for
        await asyncio.sleep(0.01)
    yield web.servers[0].sockets[0].getsockname()[1]
    web.should_exit = True
    await serving
