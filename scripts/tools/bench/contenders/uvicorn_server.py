"""Uvicorn on uvloop, with the WebSocket implementation that it chooses itself."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[int]:
    """Serve an ASGI application on a free port of 127.0.0.1; the process ends with the context.

    At once, without goodbyes: uvicorn's to a thousand clients are not measured, slow and loud.
    """
    config = uvicorn.Config(
        app, "127.0.0.1", 0, lifespan="off", log_config=None, ws_per_message_deflate=False
    )
    web = uvicorn.Server(config)
    serving = asyncio.create_task(web.serve())
    while not web.started:  # noqa: ASYNC110  # uvicorn has nothing to wait for
        await asyncio.sleep(0.01)
    yield web.servers[0].sockets[0].getsockname()[1]
    assert not serving.done()
    os._exit(0)
