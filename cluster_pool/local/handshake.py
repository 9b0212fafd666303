"""A connection whose handshake is not answered yet: messages to it are held until then."""

from cluster_pool.core.closing import ABNORMAL
from cluster_pool.core.ids import exact
from cluster_pool.core.message import Outgoing
from cluster_pool.exceptions import ClusterPoolError, ConnectionClosedError
from cluster_pool.local import closing, pinging
from cluster_pool.local.outbox import flush
from cluster_pool.local.state import CLOSED, CLOSING, DUE, HOLDING, OPEN, ConnectionState


def is_answered(connection: ConnectionState) -> bool:
    """Whether its handshake was answered before the connection was made."""
    return connection._transport.is_answered()


def hold(connection: ConnectionState, first: Outgoing | None = None) -> None:
    """Hold messages to it until :func:`release_hold`: the handshake is not answered yet.

    Args:
        first: is written ahead of them, and takes nothing of the room for them.
    """
    if connection._state is OPEN:
        connection._state = HOLDING
        if first is not None:
            connection._pending = [first]


def hold_again(connection: ConnectionState) -> bool:
    """Hold messages to one whose handshake is answered; whether it was not held before."""
    if connection._state is not OPEN:
        return False
    flush(connection)
    hold(connection)
    return connection._state is HOLDING


def replace_first(connection: ConnectionState, first: Outgoing) -> None:
    """Replace the message that is written ahead of those that are held: see :func:`hold`."""
    if isinstance(connection._pending, list) and connection._state in (HOLDING, DUE):
        connection._pending[0] = first


def release_hold(connection: ConnectionState) -> None:
    """The WebSocket is open: write the held messages, and a close behind them if there is one."""
    if connection._state is HOLDING:
        connection._state = OPEN
        flush(connection)
        pinging.ping(connection)
    elif connection._state is DUE:
        connection._state = CLOSING
        flush(connection)
        pinging.ping(connection, closing=True)
        closing.resume(connection)
    closing.tell_released(connection)


async def accept(connection: ConnectionState, subprotocol: str | None = None) -> None:
    """Answer the handshake, if the framework has not done it, and open the connection.

    Raises:
        ConnectionClosedError: it was closed meanwhile (taken over, drained). The client got the
            earlier messages, and then the code.
    """
    await connection._transport.accept(None if subprotocol is None else exact(subprotocol))
    release_hold(connection)
    if connection.closed:
        await closing.wait_closed(connection)
        raise ConnectionClosedError(connection.close_code or ABNORMAL, connection.close_reason)


async def refuse(connection: ConnectionState, status: int, text: str) -> None:
    """Refuse the handshake with an HTTP status; if it was answered already, close."""
    connection._state = CLOSED
    closing.tell_released(connection)
    pinging.settle(connection)
    await connection._transport.refuse(status, text)


def refusal(
    connection: ConnectionState, error: ClusterPoolError, status: int, text: str
) -> ClusterPoolError:
    """The error to raise for its refused handshake; see :meth:`Transport.refusal`."""
    return connection._transport.refusal(error, status, text)


def closing_of(connection: ConnectionState, error: Exception) -> tuple[int, str] | None:
    """The close code and reason that an error of its body asks for; see the transport's."""
    return connection._transport.closing_of(error)
