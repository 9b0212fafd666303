"""The outbox of one connection: pending bytes, order, limits, slow consumers.

Messages delivered in one tick of the loop are written at its end, in order and in one write, and a
close goes behind them. The outbox is bounded by the bytes that the kernel has not accepted a turn
after a write. Nothing here ever waits.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final
from weakref import ref

from cluster_pool.core.client_frames import ClientFrame
from cluster_pool.core.closing import TRY_AGAIN_LATER
from cluster_pool.core.message import Outgoing
from cluster_pool.core.results import SendResult
from cluster_pool.local import closing, pinging
from cluster_pool.local.membership import Membership
from cluster_pool.local.services import ConnectionServices
from cluster_pool.local.state import DUE, HOLDING, OPEN, ConnectionState
from cluster_pool.transports.direct import write_directly

DELIVERED, REFUSED = SendResult.DELIVERED, SendResult.REFUSED
MOST_LEFT: Final = 4
"""Full outboxes that may wait while it closes: those of two turns, and a message beyond each."""


def deliver(connection: ConnectionState, message: Outgoing) -> SendResult:
    """Put a prepared message into the outbox."""
    state, services = connection._state, connection._services
    if state is OPEN:
        pending = connection._pending
        if pending is None:
            services.flusher.add(connection)
            connection._pending = message
            connection._pending_bytes = message.size
        else:
            size = connection._pending_bytes + message.size
            if size > services.limits.outbox_bytes:
                return _deliver_full(connection, message)
            if isinstance(pending, list):
                pending.append(message)
            else:
                connection._pending = [pending, message]
            connection._pending_bytes = size
        counters = services.counters
        counters.delivered += message.count
        counters.delivered_bytes += message.size
        return DELIVERED
    if state is HOLDING:
        if _hold_more(connection, message):
            services.counters.delivered += message.count
            services.counters.delivered_bytes += message.size
            return DELIVERED
        if connection._receipts is not None and connection._receipts.account is not None:
            close_slow(connection)  # so that its client comes back for what is missing
    services.counters.refused += message.count
    return REFUSED


def deliver_whole(connection: ConnectionState, messages: Sequence[Outgoing]) -> bool:
    """:func:`deliver` all of several messages, or none if they do not fit into the outbox."""
    size = 0 if connection._pending is None else connection._pending_bytes
    size += sum(message.size for message in messages)
    if size > connection._services.limits.outbox_bytes:
        return False
    for message in messages:
        deliver(connection, message)
    return True


def deliver_to_all(
    services: ConnectionServices,
    memberships: Iterable[Membership[ConnectionState]],
    message: Outgoing,
) -> int:
    """:func:`deliver` to many members of one pool; returns the number of outboxes that got it.

    The common cases, an empty outbox or one that gathers several messages of this tick, are handled
    here, which saves a call for each.
    """
    size, limit = message.size, services.limits.outbox_bytes
    fresh: list[ConnectionState] = []
    gathered = others = 0
    for membership in memberships:
        one = membership.connection
        pending = one._pending
        if one._state is not OPEN:
            others += bool(deliver(one, message))
        elif pending is None:
            one._pending = message
            one._pending_bytes = size
            fresh.append(one)
        elif isinstance(pending, list) and one._pending_bytes + size <= limit:
            pending.append(message)
            one._pending_bytes += size
            gathered += 1
        elif deliver(one, message):
            others += 1
    services.flusher.add_all(fresh)
    services.counters.delivered += (len(fresh) + gathered) * message.count
    services.counters.delivered_bytes += (len(fresh) + gathered) * size
    return len(fresh) + gathered + others


def _deliver_full(connection: ConnectionState, message: Outgoing) -> SendResult:
    """The outbox is full in this tick: write it now, then accept as much again, but no more."""
    flush(connection)
    waiting = connection._writer.buffered()
    services = connection._services
    if connection._state is OPEN:
        if not waiting or waiting + message.size <= 2 * services.limits.outbox_bytes:
            return deliver(connection, message)
        close_slow(connection)
    services.counters.refused += message.count
    return REFUSED


def _hold_more(connection: ConnectionState, message: Outgoing) -> bool:
    limit = connection._services.limits.outbox_bytes
    pending = connection._pending
    held = connection._pending_bytes
    if held and held + message.size > limit:
        return False
    if pending is None:
        pending = connection._pending = []
    assert isinstance(pending, list)
    pending.append(message)
    connection._pending_bytes += message.size
    return True


def put_ahead(
    connection: ConnectionState,
    messages: Sequence[Outgoing],
    is_among: Callable[[Outgoing], bool],
    *,
    whole: bool = False,
) -> bool:
    """Put earlier messages ahead of those that are held, before the handshake is answered, but
    behind the welcome of a client of ``cluster-pool.v1``.

    As many of the last ones as fit into the outbox; one does, if nothing is held.

    Args:
        is_among: whether a message that is held is one of the earlier ones; then it goes.
        whole: all of them or none.

    Returns:
        False if that was none.
    """
    if connection._state is not HOLDING and connection._state is not DUE:
        return False
    services, pending = connection._services, connection._pending or []
    assert isinstance(pending, list)
    welcome = [one for one in pending[:1] if type(one) is ClientFrame]
    held = [part for one in pending[len(welcome) :] for part in one.parts]
    kept = [part for part in held if not is_among(part)]
    size, before = sum(part.size for part in kept), connection._pending_bytes
    first = len(messages)
    while first and (size + messages[first - 1].size <= services.limits.outbox_bytes or not size):
        first -= 1
        size += messages[first].size
    if whole and first:
        return False
    ahead = messages[first:]
    services.counters.delivered += len(ahead) + len(kept) - len(held)
    services.counters.delivered_bytes += size - before
    connection._pending, connection._pending_bytes = [*welcome, *ahead, *kept] or None, size
    return True


# -- writing -------------------------------------------------------------------------------


def write_out(connections: Iterable[ConnectionState]) -> None:
    """Write the pending messages of each of ``connections``, at the end of a tick.

    First look up all descriptors, then write, then handle what could not be written: so nothing can
    change between look and write. Connections without a descriptor are flushed last.
    """
    due: list[tuple[ConnectionState, int, Outgoing]] = []
    others: list[ConnectionState] = []
    for one in connections:
        pending = one._pending
        if pending is None:
            continue
        descriptor = one._writer.descriptor()
        if descriptor < 0 or one._state is HOLDING or one._state is DUE:
            others.append(one)
            continue
        one._pending = None
        joined = Outgoing.join(pending) if isinstance(pending, list) else pending
        if one._receipts is not None:
            one._receipts.wrote(joined)
        due.append((one, descriptor, joined))
    for one, outgoing, written in write_directly(due):
        _hand_over(one, outgoing, written)
    for one in others:
        flush(one)


def flush(connection: ConnectionState) -> None:
    """Write the pending messages of one connection, unless its handshake is not answered."""
    pending = connection._pending
    if pending is not None and connection._state is not HOLDING and connection._state is not DUE:
        connection._pending = None
        joined = Outgoing.join(pending) if isinstance(pending, list) else pending
        if connection._receipts is not None:
            connection._receipts.wrote(joined)
        _hand_over(connection, joined)


def _hand_over(connection: ConnectionState, outgoing: Outgoing, written: int = 0) -> None:
    """Hand messages to the writer; ``written`` bytes of the frame were written already."""
    left = connection._writer.write(outgoing, written)
    if left > 0:
        services = connection._services
        if not connection._watched:
            connection._watched = True
            services.watch(connection)
        if left > services.limits.outbox_bytes:
            asyncio.get_running_loop().call_soon(judge, connection)
    elif left < 0 and connection._state is OPEN:
        closing.lose(connection)


def ping_out(connections: Iterable[ConnectionState]) -> None:
    """Write a ping behind all messages of each of ``connections`` that awaits a receipt."""
    for one in connections:
        flush(one)
        if one._state is OPEN:
            pinging.ping(one)


def ping_unreceived(connection: ConnectionState) -> bool:
    """Write a ping behind all messages, if one was written of which there is no receipt."""
    flush(connection)
    return connection._state is OPEN and pinging.ping_now(connection)


class ConnectionOutbox:
    """See :class:`Outbox`: that of one connection, for its transport."""

    __slots__ = ("_connection",)

    def __init__(self, connection: ConnectionState) -> None:
        self._connection = ref(connection)  # which has a transport, and that may have this

    def write_pending(self) -> None:
        """See :class:`Outbox`."""
        connection = self._connection()
        if connection is not None:
            flush(connection)

    def check_limit(self) -> None:
        """See :class:`Outbox`."""
        connection = self._connection()
        if connection is not None:
            asyncio.get_running_loop().call_soon(judge, connection)


# -- limits --------------------------------------------------------------------------------


def judge(connection: ConnectionState) -> None:
    """Check the limit a turn after a write: what is buffered then, the kernel has not accepted.

    Above the limit the connection is closed. If it is closing already, and gets more to write since
    its client sends pings and reads nothing, it is cut.
    """
    waiting, limit = connection._writer.buffered(), connection._services.limits.outbox_bytes
    if connection._state is OPEN and waiting > limit:
        close_slow(connection)
    elif connection.closed and waiting > MOST_LEFT * limit:
        closing.cut(connection)


def is_stuck(connection: ConnectionState, now: float) -> bool:
    """Whether bytes wait and the kernel has accepted none of them for too long."""
    if not connection._writer.buffered():
        connection._stuck_since = 0.0
        return False
    written = connection._writer.bytes_written()
    if not connection._stuck_since or written != connection._written_before:
        connection._stuck_since, connection._written_before = now, written
    return now - connection._stuck_since >= connection._services.timing.outbox_age


def is_busy(connection: ConnectionState) -> bool:
    """Whether a handler is running, or bytes wait to be written."""
    return bool(connection._busy_since or connection._pending or connection._writer.buffered())


# -- closes behind messages ----------------------------------------------------------------


def begin_close(
    connection: ConnectionState, code: int, reason: str, within: float | None = None
) -> None:
    """Close behind delivered messages. Does nothing if it is closing already.

    Before the handshake is answered, the messages and the close wait for that.

    Args:
        within: cut it after so many seconds at the latest: ``Timing.flush`` to write earlier
            messages and ``Timing.close`` for the handshake, or less of both. By default it is cut
            after ``Timing.close``.
    """
    if connection.closed:
        return
    connection.close_code, connection.close_reason = code, reason
    flush(connection)
    if not connection.closed:
        if connection._state is OPEN:
            pinging.ping(connection, closing=True)
        closing.begin(connection, code, reason, within)


def kick(connection: ConnectionState, code: int, reason: str) -> None:
    """As :func:`begin_close`, and ignore further messages of the client.

    For a client that lost its id or is closed by the pool: no message is yielded or given to a
    handler any more, and a task that waits for one stops at once.
    """
    closing.tell_owner(connection)
    throw_out(connection, code, reason)


def throw_out(connection: ConnectionState, code: int, reason: str) -> None:
    """As :func:`kick`, for a reason that the client gave and not the current task."""
    closing.silence(connection)
    begin_close(connection, code, reason)


def close_slow(connection: ConnectionState) -> None:
    """Close with 1013: its client reads less than it is sent."""
    connection._services.counters.slow_consumers += 1
    connection._services.slow_consumer(connection)
    throw_out(connection, TRY_AGAIN_LATER, "slow consumer")
