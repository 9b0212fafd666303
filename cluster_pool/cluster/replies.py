"""Who waits for whose answer, by the number of the request."""

import asyncio
import secrets
from typing import Any

from cluster_pool.core.results import SendResult
from cluster_pool.exceptions import PoolClosedError


class Replies:
    """Who waits for the word of which owner."""

    def __init__(self) -> None:
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._requests = secrets.randbits(52)  # no process, restart or fork has these numbers, too

    def expect(self) -> tuple[int, "asyncio.Future[Any]"]:
        """A new request number, and the future of its reply."""
        self._requests += 1
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[self._requests] = future
        return self._requests, future

    def forget(self, request: int) -> None:
        """Nobody waits any more."""
        self._waiting.pop(request, None)

    def heard(self, request: int, result: SendResult | str) -> None:
        """A reply has come."""
        future = self._waiting.get(request)
        if future is not None and not future.done():
            future.set_result(result)

    def stop(self) -> None:
        """Nothing more will be heard: tell everybody who waits."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(PoolClosedError("stopped"))
                future.exception()  # taken note of: its caller may still be waiting for Redis
