"""Handlers that users register for what happens to a pool; their faults stay theirs."""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any

from cluster_pool.core.ids import shown
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import InvalidValueError

log = logging.getLogger("cluster_pool")

EVENTS = ("empty", "gap", "slow_consumer", "state", "takeover")


class Hooks:
    """Calls handlers, sync or async; what one raises is logged and counted."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._handlers: dict[str, list[Callable[..., Any]]] = {event: [] for event in EVENTS}
        self._running: set[asyncio.Task[None]] = set()

    def add(self, event: str, handler: Callable[..., Any]) -> None:
        """Register a handler."""
        if event not in self._handlers:
            raise InvalidValueError(f"no event {shown(event)}: there are {', '.join(EVENTS)}")
        self._handlers[event].append(handler)

    def fire(self, event: str, *arguments: Any) -> None:
        """Call every handler of an event; async ones run in tasks of this object."""
        for handler in self._handlers[event]:
            self.call(event, handler, *arguments)

    def call(self, event: str, handler: Callable[..., Any], *arguments: Any) -> None:
        """Call one handler as if it were registered for an event."""
        try:
            result = handler(*arguments)
        except Exception:
            self._failed(event)
            return
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(self._finish(event, result))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def stop(self) -> None:
        """End handlers that are still running."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _finish(self, event: str, result: Any) -> None:
        try:
            await result
        except Exception:
            self._failed(event)

    def _failed(self, event: str) -> None:
        self._counters.handler_errors += 1
        log.exception("a handler of %r failed", event)
