"""The handlers of a connection: their events, how they are called, and reports about them."""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal, TypeVar, get_args

from cluster_pool.core.ids import shown
from cluster_pool.core.message import Message
from cluster_pool.core.quiet import fault, others
from cluster_pool.exceptions import ConnectionClosedError, InvalidValueError
from cluster_pool.local.state import ConnectionState

log = logging.getLogger("cluster_pool.connection")

ConnectionEvent = Literal["message", "close", "error", "left"]
EVENTS: Final[tuple[ConnectionEvent, ...]] = get_args(ConnectionEvent)

OnMessage = TypeVar("OnMessage", bound=Callable[[Message], Any])
OnClose = TypeVar("OnClose", bound=Callable[[int, str], Any])
OnError = TypeVar("OnError", bound=Callable[[Exception], Any])
OnLeft = TypeVar("OnLeft", bound=Callable[[str, str], Any])


def check_event(event: str) -> None:
    """Raise InvalidValueError, which names the events, unless this is one."""
    if event not in EVENTS:
        raise InvalidValueError(f"no event {shown(event)}: there are {', '.join(EVENTS)}")


def add_handler(
    connection: ConnectionState, event: str, handler: Callable[..., Any]
) -> Callable[..., Any]:
    """Call ``handler`` at each ``event`` from now on; returns it."""
    if connection._handlers is None:
        connection._handlers = {}
    connection._handlers.setdefault(event, []).append(handler)
    return handler


def has_handlers(connection: ConnectionState, event: str) -> bool:
    """Whether there is a handler for an event."""
    return connection._handlers is not None and event in connection._handlers


async def fire(connection: ConnectionState, event: str, *arguments: Any) -> None:
    """Call the handlers of an event, one after another; an error of one is reported."""
    for handler in (connection._handlers or {}).get(event, ()):
        try:
            result = handler(*arguments)
            if inspect.isawaitable(result):
                await _attend(connection, result)
        except ConnectionClosedError as error:
            if error.connection is not connection:  # else its client has left: no fault of theirs
                await _failed(connection, event, error)
        except Exception as error:
            await _failed(connection, event, error)


async def _attend(connection: ConnectionState, handling: Awaitable[Any]) -> None:
    """Await a handler; the sweeper reports it if it takes too long."""
    if not connection._watched:
        connection._watched = True
        connection._services.watch(connection)
    connection._busy_since = asyncio.get_running_loop().time()
    try:
        await handling
    finally:
        connection._busy_since = 0.0


async def _failed(connection: ConnectionState, event: str, error: Exception) -> None:
    connection._services.counters.handler_errors += 1
    _report(connection, event, error)
    if event != "error":
        await fire(connection, "error", error)


def _report(connection: ConnectionState, event: str, error: Exception) -> None:
    """Log an error of a handler: only the first of each connection, and each fault only once."""
    now = asyncio.get_running_loop().time()
    quiet = connection._services.quiet
    times = 0 if connection._reported else quiet.due((event, fault(error)), now)
    connection._reported = True
    level = logging.ERROR if times else logging.DEBUG
    text = "a %s handler of %r failed%s"
    log.log(level, text, event, connection, others(times or 1), exc_info=error)


def report_hang(connection: ConnectionState, now: float) -> None:
    """Report once a handler that does not return: it blocks its own connection."""
    services = connection._services
    limit = services.timing.handler
    if connection._busy_since and now - connection._busy_since >= limit:
        connection._busy_since = 0.0
        services.counters.handler_hangs += 1
        if times := services.quiet.due("hang", now):
            text = "a handler of %r has not returned for %g s%s"
            log.error(text, connection, limit, others(times))
