"""Asks for receipts of a connection: when a ping is sent, who waits for its answer, and the end.

:mod:`.receipts` tells which answer counts. The outbox has its messages written before each ping.
"""

import asyncio
from functools import partial
from weakref import ref

from cluster_pool.core.closing import is_answer
from cluster_pool.core.results import SendResult
from cluster_pool.local.receipts import MOST_WAITING, Account, Receipts, Tell
from cluster_pool.local.state import CLOSED, ConnectionState


def keep_account(connection: ConnectionState, account: Account | None = None) -> Receipts:
    """Count what is written to it and received, from now on, until it has ended and after that.

    Pings ask for receipts: those of the keepalive of ``serve`` and, where pongs are heard, one a
    second at most while much is written. An answered Close counts everywhere.

    Args:
        account: is told of it, and at once if the connection has ended.
    """
    receipts = _receipts_of(connection)
    receipts.account = account
    if account is not None and receipts.over:
        account.over()
    if connection._services.receipts:
        receipts.clock = asyncio.get_running_loop().time
    return receipts


def expect(connection: ConnectionState, tell: Tell, deadline: float) -> bool:
    """Await the receipt of all that was put into the outbox so far.

    Args:
        tell: called with RECEIVED; or with TIMED_OUT when the connection ends and left no proof;
            not at all after the deadline.
        deadline: until when, on the clock of the loop.

    Returns:
        False if it cannot be found out: ``tell`` is not called.
    """
    if not connection._services.receipts or not connection._transport.hears_pongs():
        return False
    receipts = _receipts_of(connection)
    if receipts.waiting >= MOST_WAITING:
        return False
    if receipts.over or connection._state is CLOSED:
        tell(SendResult.TIMED_OUT)
        return True
    receipts.add((deadline, tell))
    if not connection._watched:
        connection._watched = True
        connection._services.watch(connection)
    return True


def _receipts_of(connection: ConnectionState) -> Receipts:
    if connection._receipts is None:
        connection._receipts = Receipts(partial(_ping_soon, ref(connection)))
    return connection._receipts


def _ping_soon(connection: ref[ConnectionState]) -> None:
    one = connection()
    if one is not None:
        one._services.pinger.add(one)


def ping(connection: ConnectionState, *, closing: bool = False) -> None:
    """Send a ping behind what was written, if a receipt of it is wanted.

    Args:
        closing: a Close follows.
    """
    receipts = connection._receipts
    if receipts is None:
        return
    receipts.closing = closing and connection._services.receipts
    if receipts.closing and receipts.account is not None:
        receipts.closed_at = receipts.account.written()
    if connection._transport.hears_pongs():
        _send(connection, receipts, receipts.next_ping(now=closing))


def ping_now(connection: ConnectionState) -> bool:
    """Send a ping that asks for a receipt, if something was written of which there is none."""
    receipts = connection._receipts
    if receipts is None or receipts.received == receipts.written:
        return False
    if not connection._services.receipts or not connection._transport.hears_pongs():
        return False
    receipts.ask()
    _send(connection, receipts, receipts.next_ping(now=True))
    return True


def _send(connection: ConnectionState, receipts: Receipts, payload: bytes | None) -> None:
    if payload is not None:
        connection._transport.ping(payload, receipts.pong)


def is_awaited(connection: ConnectionState, now: float) -> bool:
    """Whether receipts are awaited; those that are late are forgotten."""
    return connection._receipts is not None and connection._receipts.expire(now)


def settle(connection: ConnectionState) -> None:
    """Nothing more will come of the client: tell those that wait what is known."""
    receipts = connection._receipts
    if receipts is not None and not receipts.over:
        answer = connection._transport.close_answer() if receipts.closing else None
        answered = answer is not None and is_answer(connection.close_code, answer)
        receipts.end(received=answered)
