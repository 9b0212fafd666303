"""The outbox of one connection: pending bytes, order, limits, slow consumers.

Messages delivered in one tick of the loop leave in one write at its end, in order, and a close goes
behind it. The outbox is bounded in bytes, judged a turn after a write on what the kernel would not
take. Nothing here ever waits.
"""

import asyncio
from collections.abc import Iterable
from typing import Final

from cluster_pool.core.closing import TRY_AGAIN_LATER
from cluster_pool.core.message import Outgoing
from cluster_pool.core.results import SendResult
from cluster_pool.local import closing
from cluster_pool.local.membership import Membership
from cluster_pool.local.services import ConnectionServices
from cluster_pool.local.state import DUE, HOLDING, OPEN, ConnectionState
from cluster_pool.transports.direct import write_directly

DELIVERED, REFUSED = SendResult.DELIVERED, SendResult.REFUSED
MOST_LEFT: Final = 4
"""Outboxes that may wait while it closes: those of two turns, and a message beyond each."""


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
        services.counters.delivered += message.count
        return DELIVERED
    if state is HOLDING and _hold_more(connection, message):
        services.counters.delivered += message.count
        return DELIVERED
    services.counters.refused += message.count
    return REFUSED


def deliver_to_all(
    services: ConnectionServices,
    memberships: Iterable[Membership[ConnectionState]],
    message: Outgoing,
) -> int:
    """:func:`deliver` to many of one pool; gives to how many outboxes it went.

    Most have an empty outbox, or gather several messages of this tick, and are dealt with here: a
    call less for each.
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
    return len(fresh) + gathered + others


def _deliver_full(connection: ConnectionState, message: Outgoing) -> SendResult:
    """This tick's share is full: hand it over now, and take as much again, but no more."""
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
    if pending and connection._pending_bytes + message.size > limit:
        return False
    if pending is None:
        pending = connection._pending = []
    assert isinstance(pending, list)
    pending.append(message)
    connection._pending_bytes += message.size
    return True


# -- writing -------------------------------------------------------------------------------


def write_out(connections: Iterable[ConnectionState]) -> None:
    """Write what is pending for each of ``connections``: at the end of a tick.

    First look, then write, then deal with what could not be written: nothing can change between
    look and write. What something is in the way of is still pending until its turn comes.
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
        due.append((one, descriptor, joined))
    for one, outgoing, written in write_directly(due):
        _hand_over(one, outgoing, written)
    for one in others:
        flush(one)


def flush(connection: ConnectionState) -> None:
    """Write what is pending for one connection, unless its handshake is not answered."""
    pending = connection._pending
    if pending is not None and connection._state is not HOLDING and connection._state is not DUE:
        connection._pending = None
        _hand_over(connection, Outgoing.join(pending) if isinstance(pending, list) else pending)


def _hand_over(connection: ConnectionState, outgoing: Outgoing, written: int = 0) -> None:
    """Hand over what was pending, of which ``written`` bytes of the frame are gone already."""
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


# -- limits --------------------------------------------------------------------------------


def judge(connection: ConnectionState) -> None:
    """A turn of the loop after a write: what is left is what the kernel would not take.

    Too much closes the connection. One that closes already, and still has more to write because
    its client pings and reads nothing, is cut.
    """
    waiting, limit = connection._writer.buffered(), connection._services.limits.outbox_bytes
    if connection._state is OPEN and waiting > limit:
        close_slow(connection)
    elif connection.closed and waiting > MOST_LEFT * limit:
        closing.cut(connection)


def is_stuck(connection: ConnectionState, now: float) -> bool:
    """Whether bytes wait of which the kernel has taken none for too long."""
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


# -- the close behind it -------------------------------------------------------------------


def begin_close(
    connection: ConnectionState, code: int, reason: str, within: float | None = None
) -> None:
    """Close behind what was delivered. Harmless when closing already.

    Before the handshake is answered, what was delivered and the close wait for that.

    Args:
        within: cut it after so many seconds at the latest: ``Timing.flush`` for what was sent
            before and ``Timing.close`` for the handshake, or less of both. By default it is cut
            after ``Timing.close``.
    """
    if connection.closed:
        return
    connection.close_code, connection.close_reason = code, reason
    flush(connection)
    if not connection.closed:
        closing.begin(connection, code, reason, within)


def kick(connection: ConnectionState, code: int, reason: str) -> None:
    """Close it, whatever its client would still say: as :func:`begin_close`, and deaf to it.

    For a client that lost its id or is not wanted: nothing more is yielded or given to a handler,
    and a task that waits for a message stops at once.
    """
    closing.tell_owner(connection)
    throw_out(connection, code, reason)


def throw_out(connection: ConnectionState, code: int, reason: str) -> None:
    """As :func:`kick`, for what its client did: the current task did not ask for it."""
    closing.silence(connection)
    begin_close(connection, code, reason)


def close_slow(connection: ConnectionState) -> None:
    """Close with 1013: its client takes less than it is sent."""
    connection._services.counters.slow_consumers += 1
    connection._services.slow_consumer(connection)
    throw_out(connection, TRY_AGAIN_LATER, "slow consumer")
