"""Reading from a client: its messages, their rate, and its end.

A connection has no task of its own: the task that iterates over it is its pump.
"""

import asyncio
import logging
from asyncio import current_task
from collections.abc import AsyncIterator
from typing import Any

from cluster_pool.core.closing import ABNORMAL, NORMAL, POLICY
from cluster_pool.core.message import Message, encode
from cluster_pool.core.quiet import others
from cluster_pool.exceptions import AlreadyReadError
from cluster_pool.local import closing
from cluster_pool.local.handlers import fire
from cluster_pool.local.outbox import begin_close, throw_out
from cluster_pool.local.state import CLOSED, ConnectionState
from cluster_pool.transports.base import Ahead, Reading, TransportClosed, Watcher

log = logging.getLogger("cluster_pool.connection")


async def messages(connection: ConnectionState) -> AsyncIterator[Message]:
    """The messages of the client, until it is closed or silenced; for one task at a time."""
    receive, time = connection._transport.receive, asyncio.get_running_loop().time
    timed = connection.idle_timeout is not None
    owner, pump, finished, over = connection._owner, current_task(), False, None
    if owner is not None:
        owner.reading_begins()
    try:
        while not connection._silenced:
            if connection._reader is not None:
                raise AlreadyReadError(f"{connection!r} is being read by another task")
            reader: Any = current_task()
            connection._reader, cancelling = reader, reader.cancelling()
            try:
                message = await receive()
            except TransportClosed as closed:
                over = closed.code, closed.reason
            except asyncio.CancelledError:
                if connection._reader is not None or reader.cancelling() > cancelling + 1:
                    raise  # another task cancels the pump, perhaps at the same time
            finally:
                if connection._reader is None:  # silence() has cancelled this read, not the task
                    reader.uncancel()
                connection._reader = None
            if over is not None or connection._silenced:
                break
            now = time()
            if timed:
                connection._last_heard = now
            _count(connection, message)
            if not _floods(connection, now):
                yield message
            del message  # do not keep a large one until the next one comes
        finished = True
        if over is None:
            await closing.wait_close_begun(connection)
            over = connection.close_code or ABNORMAL, connection.close_reason
        await _ended(connection, *over)
    finally:
        if owner is not None:
            owner.reading_ends(pump, finished=finished)


async def feed(connection: ConnectionState, message: Message) -> None:
    """Give a message of the client to the handlers, if the transport cannot be read."""
    encode(message, connection._services.limits.message_bytes)
    if connection._silenced or connection._state is CLOSED:
        return
    connection._last_heard = asyncio.get_running_loop().time()
    _count(connection, message)
    if not _floods(connection, connection._last_heard):
        await fire(connection, "message", message)


def _count(connection: ConnectionState, message: Message) -> None:
    counters = connection._services.counters
    counters.received += 1
    if isinstance(message, str) and not message.isascii():
        message = message.encode(errors="replace")
    counters.received_bytes += len(message)


async def _ended(connection: ConnectionState, code: int, reason: str) -> None:
    closing.note_end(connection, code, reason)
    if not connection.closed:
        begin_close(connection, NORMAL, "")
    if not connection._told:
        connection._told = True
        await fire(connection, "close", connection.close_code, connection.close_reason)


# -- the rate ------------------------------------------------------------------------------


def _floods(connection: ConnectionState, now: float) -> bool:
    """Whether the client sends more than it may; then it is closed with 1008."""
    rate = connection._services.limits.inbound_per_second
    connection._inbound_due = max(connection._inbound_due, now) + 1 / rate
    if connection._inbound_due - now <= 1 + 1 / rate:
        return False
    flood(connection, rate, "messages")
    return True


def count_dropped(connection: ConnectionState) -> None:
    """A message was dropped, since nothing reads: a client may not send more of these either."""
    _floods(connection, asyncio.get_running_loop().time())


def flood(connection: ConnectionState, rate: int, what: str) -> None:
    """Its client sends more than it may: close it with 1008, count and log it."""
    if connection.closed:
        return
    services = connection._services
    services.counters.inbound_floods += 1
    if times := services.quiet.due("flood", asyncio.get_running_loop().time()):
        text = "%r sent more than %d %s in a second%s"
        log.info(text, connection, rate, what, others(times))
    throw_out(connection, POLICY, f"too many {what}")


# -- a client that leaves while no task reads ----------------------------------------------


def watch(connection: ConnectionState, watcher: Watcher, ahead: Ahead) -> None:
    """Notice at once that the client leaves, also when no task reads."""
    connection._transport.watch(watcher, ahead)
    connection._watcher = watcher


async def unwatch(connection: ConnectionState) -> None:
    """End :func:`watch`."""
    watcher, connection._watcher = connection._watcher, None
    if watcher is not None:
        await connection._transport.unwatch(watcher)


def reading(connection: ConnectionState) -> Reading:
    """How the WebSocket is read beside the connection, while it is watched."""
    return connection._transport.reading()


async def tell_end(connection: ConnectionState) -> None:
    """Tell the handlers that it is closed, if its client has left and they were not told."""
    if connection._left:
        await _ended(connection, connection.close_code or ABNORMAL, connection.close_reason)
