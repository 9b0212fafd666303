"""An application behind a real uvicorn, in the loop of the test."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import uvicorn

from tests.support import eventually

QUIET = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # uvicorn's own imports
    pytest.mark.filterwarnings("ignore:The `websockets` implementation is deprecated"),
]


@contextlib.asynccontextmanager
async def served(app: Any, ws: Any = "auto", **options: Any) -> AsyncIterator[str]:
    """The URL of an app on a free port; ``ws`` is uvicorn's WebSocket implementation."""
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws=ws, **options
    )
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None
    task = asyncio.create_task(server.serve())
    await eventually(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"ws://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
