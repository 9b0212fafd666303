"""Handlers that users register for events of a pool; their errors do not affect the pool.

An error of a handler is counted and logged, with its traceback the first time. A handler that does
not return in time is counted and logged once; when too many do not return, no more are called until
some have returned.
"""

import asyncio
import inspect
import logging
from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar, get_args

from cluster_pool.core.config import Timing
from cluster_pool.core.ids import is_reserved, shown
from cluster_pool.core.quiet import Quiet, others
from cluster_pool.core.results import Gap, NodeState
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import InvalidValueError
from cluster_pool.local.connection import Connection

log = logging.getLogger("cluster_pool")

PoolEvent = Literal["empty", "gap", "slow_consumer", "state", "takeover"]
EVENTS: Final[tuple[PoolEvent, ...]] = get_args(PoolEvent)

OnConnection = TypeVar("OnConnection", bound=Callable[[Connection], Any])
OnEmpty = TypeVar("OnEmpty", bound=Callable[[str], Any])
OnGap = TypeVar("OnGap", bound=Callable[[Gap], Any])
OnState = TypeVar("OnState", bound=Callable[[NodeState], Any])

MAX_RUNNING = 1000
"""Asynchronous handlers that run at the same time, at most."""
PATIENCE = 1.0
"""Seconds that a handler has to end when the pool stops."""


class Hooks:
    """Calls handlers, sync or async."""

    def __init__(self, timing: Timing, counters: Counters) -> None:
        self._timing = timing
        self._counters = counters
        self._handlers: dict[str, list[Callable[..., Any]]] = {event: [] for event in EVENTS}
        self._running: dict[asyncio.Task[None], asyncio.TimerHandle] = {}
        self._quiet = Quiet()
        self._reported: set[str] = set()

    def check(self, event: str) -> None:
        """Raise InvalidValueError unless there is such an event."""
        if event not in self._handlers:
            raise InvalidValueError(f"no event {shown(event)}: there are {', '.join(EVENTS)}")

    def add(self, event: str, handler: Callable[..., Any]) -> Callable[..., Any]:
        """Register a handler, and return it."""
        self.check(event)
        self._handlers[event].append(handler)
        return handler

    def fire(self, event: str, *arguments: Any) -> None:
        """Call every handler of an event; async ones run in tasks of this object."""
        for handler in self._handlers[event]:
            self.call(event, handler, *arguments)

    def emptied(self, namespace: str) -> None:
        """A namespace has no member any more: fire ``empty``, unless it is the library's own."""
        if not is_reserved(namespace):
            self.fire("empty", namespace)

    def call(self, event: str, handler: Callable[..., Any], *arguments: Any) -> None:
        """Call one handler as if it were registered for an event."""
        if len(self._running) >= MAX_RUNNING:
            self._failed(event, f"not called: {MAX_RUNNING} handlers have not returned yet")
            return
        try:
            result = handler(*arguments)
        except Exception as error:
            self._failed(event, "failed", error)
            return
        if inspect.isawaitable(result):
            task = asyncio.ensure_future(self._finish(event, result))
            limit = self._timing.handler
            timer = asyncio.get_running_loop().call_later(limit, self._hangs, event)
            self._running[task] = timer
            task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Cancel handlers that are still running, after each has begun."""
        await asyncio.sleep(0)
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running, timeout=PATIENCE)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task).cancel()

    async def _finish(self, event: str, result: Any) -> None:
        try:
            await result
        except Exception as error:
            self._failed(event, "failed", error)

    def _hangs(self, event: str) -> None:
        self._counters.handler_hangs += 1
        times = self._quiet.due(event, asyncio.get_running_loop().time())
        if times:
            limit = self._timing.handler
            log.error("a handler of %r has not returned for %g s%s", event, limit, others(times))

    def _failed(self, event: str, what: str, error: Exception | None = None) -> None:
        self._counters.handler_errors += 1
        level = logging.DEBUG if event in self._reported else logging.ERROR
        self._reported.add(event)
        log.log(level, "a handler of %r %s", event, what, exc_info=error)
