"""How a connection ends: its deadlines (flush, handshake, cut, idle), and the loss of its socket.

A close has ``Timing.close`` seconds for its handshake, and in a drain ``Timing.flush`` before that
to write earlier messages; then the socket is cut. There is no timer: the sweeper checks the
deadlines. The outbox writes pending messages ahead of a close.
"""

import asyncio
from math import inf

from cluster_pool.core.closing import ABNORMAL, NORMAL
from cluster_pool.local.pinging import settle
from cluster_pool.local.state import CLOSED, CLOSING, DUE, HOLDING, ConnectionState


def is_gone(connection: ConnectionState) -> bool:
    """Whether its socket is gone."""
    return connection._state is CLOSED


def is_lost(connection: ConnectionState) -> bool:
    """Whether its client has left, or its socket is gone, even if that was not noticed yet."""
    left = connection._left or connection._state is CLOSED
    return left or connection._transport.is_closed()


def is_over(connection: ConnectionState) -> bool:
    """Whether its client has left, or its further messages are ignored."""
    return connection._left or connection._silenced or connection._state is CLOSED


def is_silenced(connection: ConnectionState) -> bool:
    """Whether further messages of its client are ignored."""
    return connection._silenced


def is_late(connection: ConnectionState, now: float) -> bool:
    """Whether a close under way has passed its deadline."""
    return now >= connection._deadline or (
        now >= connection._flush_by and connection._writer.buffered() > 0
    )


def is_idle(connection: ConnectionState, now: float) -> bool:
    """Whether its client has sent nothing for its ``idle_timeout``."""
    limit = connection.idle_timeout
    return limit is not None and now - connection._last_heard >= limit


def deadline_of(connection: ConnectionState) -> float:
    """When its socket is cut if the close has not ended, on the clock of the loop."""
    return connection._deadline


# -- a close that we begin -----------------------------------------------------------------


def begin(connection: ConnectionState, code: int, reason: str, within: float | None) -> None:
    """Close the WebSocket behind what was written, or behind its handshake; see ``begin_close``."""
    _tell_account(connection)
    connection._state = DUE if connection._state is HOLDING else CLOSING
    now, timing = asyncio.get_running_loop().time(), connection._services.timing
    connection._deadline = now + timing.close
    if within is not None:
        shrunk = min(1.0, max(0.0, within) / (timing.flush + timing.close))
        connection._flush_by = now + timing.flush * shrunk
        unwritten = connection._writer.buffered() > 0
        connection._deadline = (connection._flush_by if unwritten else now) + timing.close * shrunk
    try:
        if connection._state is CLOSING:
            connection._transport.close(code, reason)
    finally:
        _report(connection)


def resume(connection: ConnectionState) -> None:
    """The handshake is answered: close the WebSocket, since the close has waited for that."""
    if connection._flush_by == inf:  # not in a drain: the client gets the full time
        now = asyncio.get_running_loop().time()
        connection._deadline = now + connection._services.timing.close
        connection._services.watch(connection)
    connection._transport.close(connection.close_code or NORMAL, connection.close_reason)


def tell_owner(connection: ConnectionState) -> None:
    """Tell the owner that the current task closes it."""
    if connection._owner is not None:
        connection._owner.closing()


def silence(connection: ConnectionState) -> None:
    """Ignore further messages of the client; wake the pump, which then ends."""
    if connection._silenced:
        return
    connection._silenced = True
    connection._transport.ignore_incoming()
    reader, connection._reader = connection._reader, None
    if reader is not None:
        reader.cancel()
    if connection._owner is not None:
        connection._owner.over()


def cut(connection: ConnectionState) -> None:
    """Cut the socket: the close handshake did not end in time, or cannot be trusted."""
    if connection._state is not CLOSED:
        connection._services.counters.forced_closes += 1
        connection._forced = True
        silence(connection)
        connection._transport.abort()
        finish(connection)


async def wait_close_begun(connection: ConnectionState) -> None:
    """Wait until earlier messages, and the close behind them, were handed to the library.

    That ends at the deadline of the close at the latest, when the socket is cut.
    """
    await connection._transport.wait_close_begun()


async def wait_closed(connection: ConnectionState) -> None:
    """Wait until a close that has begun has ended; at its deadline the socket is cut."""
    try:
        if connection._state is DUE:
            async with asyncio.timeout_at(connection._deadline):
                await _handshake_ends(connection)
        async with asyncio.timeout_at(connection._deadline):
            await connection._transport.wait_closed()
    except TimeoutError:
        cut(connection)
    finish(connection)


async def _handshake_ends(connection: ConnectionState) -> None:
    if connection._released is None:
        connection._released = asyncio.get_running_loop().create_future()
    await asyncio.shield(connection._released)


def tell_released(connection: ConnectionState) -> None:
    """The handshake is answered, or never will be: wake the tasks that wait for it."""
    if connection._released is not None and not connection._released.done():
        connection._released.set_result(None)


# -- an end that comes from the client or the network --------------------------------------


def lose(connection: ConnectionState) -> None:
    """The socket went away by itself."""
    _tell_account(connection)
    connection._state = CLOSING
    if connection.close_code is None:
        connection.close_code = ABNORMAL
    now = asyncio.get_running_loop().time()
    connection._deadline = now + connection._services.timing.close
    _report(connection)


def finish(connection: ConnectionState) -> None:
    """The socket is gone."""
    if not connection.closed:
        lose(connection)
    connection._state = CLOSED
    connection._pending = None
    settle(connection)
    tell_released(connection)


def client_left(connection: ConnectionState, code: int, reason: str) -> None:
    """The client has left: it is a member no longer, and later sends are refused."""
    if connection._left:
        return
    connection._left = True
    note_end(connection, code, reason)
    note_answer(connection)
    if not connection.closed:
        lose(connection)
    if connection._owner is not None:
        connection._owner.over()


def note_answer(connection: ConnectionState) -> None:
    """Nothing more will come of the client, which has closed; its socket may end much later.

    The Pongs that came with its Close may be unhandled yet.
    """
    if connection._receipts is not None:
        asyncio.get_running_loop().call_soon(settle, connection)


def note_answered(connection: ConnectionState) -> None:
    """If its client has answered our Close, which nobody watched: see :func:`client_left`."""
    answer = connection._transport.close_answer() if connection._state is CLOSING else None
    if answer is not None:
        client_left(connection, answer, "")


def note_end(connection: ConnectionState, code: int, reason: str) -> None:
    """Record code and reason of the end, unless they are known; finish if the socket is gone."""
    if connection.close_code is None:
        connection.close_code, connection.close_reason = code, reason
    if connection._transport.is_closed():
        finish(connection)


def _tell_account(connection: ConnectionState) -> None:
    receipts = connection._receipts
    if receipts is not None and receipts.account is not None:
        receipts.account.closing(opened=connection._state is not HOLDING)


def _report(connection: ConnectionState) -> None:
    connection._services.counters.closed(connection.close_code)
    connection._services.watch(connection)
    connection._services.connection_closing(connection)
