"""Uvicorn on uvloop, with the WebSocket implementation that it chooses itself."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

from tools.bench.gate import Opened
from tools.bench.sender import Sender, each_alone
from tools.harness.obeying import answer, obey_object


async def serve_and_send(
    app: Any,
    to_all: Callable[[str], Awaitable[None]],
    to_one: Callable[[str, str], Awaitable[None]],
    gate: int,
) -> None:
    """Serve an ASGI application on a free port of 127.0.0.1, and send until standard input ends.

    It ends without goodbyes: uvicorn's to a thousand clients are not measured, slow and loud.
    """
    config = uvicorn.Config(
        app, "127.0.0.1", 0, lifespan="off", log_config=None, ws_per_message_deflate=False
    )
    web = uvicorn.Server(config)
    serving = asyncio.create_task(web.serve())
    while not web.started:  # noqa: ASYNC110  # uvicorn has nothing to wait for
        await asyncio.sleep(0.01)
    sender = Sender(*each_alone(to_all, to_one), Opened(gate))
    answer({"port": web.servers[0].sockets[0].getsockname()[1]})
    await obey_object(sender)
    assert not serving.done()
    os._exit(0)
