"""Workarounds for peculiarities of ASGI servers, all of them of uvicorn's protocols."""

import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

SANSIO: Final = "uvicorn.protocols.websockets.websockets_sansio_impl"
LEGACY: Final = "uvicorn.protocols.websockets.websockets_impl"
EXTENSION: Final = "cluster_pool.uvicorn"
"""The key in a scope's extensions under which a protocol of ours puts itself."""
REFUSED_WITHIN: Final = 1.0
"""Seconds that a refusal waits for the end of the socket, at most."""


def close_awaits_answer() -> bool:
    """Whether an ASGI close may wait for the client's answer; most return when it is written."""
    return LEGACY in sys.modules


async def until_refused(
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]], missing: int
) -> None:
    """Return to uvicorn's sans-I/O protocol only when it has closed the socket.

    If the application returns before that, uvicorn thinks that it gave no answer, and logs an error
    for each refusal (Kludex/uvicorn pull request 3138, open). ``receive`` gives "disconnect" after
    the denial, and again when the socket is closed.

    Args:
        receive: the receive of ASGI.
        missing: how many "disconnect" events are still to come.
    """
    if SANSIO not in sys.modules:
        return
    with contextlib.suppress(Exception):  # of the time-out, or of a framework that wraps receive
        async with asyncio.timeout(REFUSED_WITHIN):
            while missing:
                missing -= (await receive())["type"] == "websocket.disconnect"
