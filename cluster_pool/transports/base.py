"""The interface between a connection and the WebSocket of some library."""

import enum
import http
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from cluster_pool.core.closing import (
    ABNORMAL,
    MAX_REASON_BYTES,
    POLICY,
    TAKEN_OVER,
    TRY_AGAIN_LATER,
    UNAUTHORIZED,
)
from cluster_pool.core.message import Message, Outgoing
from cluster_pool.core.request import Request
from cluster_pool.exceptions import ClusterPoolError

CODES: Final[dict[int, int]] = {
    http.HTTPStatus.BAD_REQUEST: POLICY,
    http.HTTPStatus.UNAUTHORIZED: UNAUTHORIZED,
    http.HTTPStatus.FORBIDDEN: POLICY,
    http.HTTPStatus.CONFLICT: TAKEN_OVER,
}
"""The close codes in place of HTTP statuses; others become 1013."""
_HEADERS: Final[dict[int, dict[str, str]]] = {
    http.HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    http.HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": "1"},
}
"""The headers of a refusal with an HTTP status."""
OVERHEAD: Final = 512
"""Bytes counted for each message that is read ahead, beside its own, to bound empty ones, too."""


def refusal_close(status: int, text: str) -> tuple[int, str]:
    """The close code and reason for an open WebSocket in place of an HTTP status and a text.

    The text is cut to the length that a close reason may have.
    """
    reason = text.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
    return CODES.get(status, TRY_AGAIN_LATER), reason


def headers_of(status: int) -> dict[str, str]:
    """The headers of a refusal."""
    return _HEADERS.get(status, {})


class TransportClosed(Exception):
    """The WebSocket is closed; raised by :meth:`Transport.receive`.

    Attributes:
        code, reason: those of the peer's Close, or of ours; 1006 when the socket was lost.
    """

    def __init__(self, code: int = ABNORMAL, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


@dataclass(slots=True)
class Ahead:
    """Limits of reading ahead; one object for all WebSockets of a pool.

    Attributes:
        one, all: bytes of one WebSocket, and of all; above the second, one message for each.
        patience: seconds after which a reader that reads nothing counts as none.
        held: bytes that are kept now.
    """

    one: int
    all: int
    patience: float
    held: int = 0


Heard = Callable[[bytes], bool]
"""Is given the payload of a pong; returns whether it was asked for."""


class Watcher(Protocol):
    """An observer of a WebSocket; it is told at once, also while no task reads."""

    def client_left(self, code: int, reason: str) -> None:
        """The client has sent a Close, broken the protocol, or is gone; called once."""

    def dropped(self, *, first: bool) -> None:
        """A message was dropped: no task reads, and there is no room to keep it."""

    def write_pending(self) -> None:
        """The client has ended the stream, or closes: write what was sent to it before."""


class Outbox(Protocol):
    """The outbox of a connection, told of writes that a library makes by itself."""

    def write_pending(self) -> None:
        """The library is about to write something: write what was sent before that."""

    def check_limit(self) -> None:
        """The library has written, and much waits: give up a client that reads nothing."""


class Reading(enum.Enum):
    """How a watched WebSocket is read, apart from reads by its connection.

    Untouched: it was not read. Unread: the same, and messages are there. Elsewhere: other code
    reads it by the library's own methods. Waited: and waits for a message right now.
    """

    UNTOUCHED = "untouched"
    UNREAD = "unread"
    ELSEWHERE = "elsewhere"
    WAITED = "waited"


class Writer(Protocol):
    """The writing side of a WebSocket. It writes in order and never blocks."""

    def descriptor(self) -> int:
        """File descriptor to write a frame to directly, or -1 if that is unsafe now.

        If it is -1, use :meth:`write`.
        """

    def write(self, outgoing: Outgoing, written: int = 0) -> int:
        """Write messages. Returns the bytes buffered then, -1 when the WebSocket is not open.

        ``written`` bytes of the frame were written to the :meth:`descriptor` already.

        An event loop may write to the kernel only at the end of its turn (uvloop does). So the
        bytes buffered right after a write may still be written; those of a turn later were refused.
        """

    def buffered(self) -> int:
        """Bytes that the kernel has not accepted yet."""

    def bytes_written(self) -> int:
        """Bytes that the kernel has accepted so far: while this grows, the peer reads."""


class Transport(Protocol):
    """A WebSocket. A close goes behind all that was written.

    Only ``accept`` and ``receive`` wait; no method waits for a slow peer.
    """

    @property
    def writer(self) -> Writer:
        """Its writing side; it never changes."""

    def write_behind(self, outbox: Outbox) -> None:
        """Let ``outbox`` write first whenever the library writes by itself, if that can be told."""

    def request(self) -> Request:
        """The client's request; an empty one if the library does not have it."""

    def is_answered(self) -> bool:
        """Whether the handshake has been answered, so that :meth:`accept` does nothing."""

    def is_closed(self) -> bool:
        """Whether the socket is gone."""

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake behind what was written; never blocks."""

    def abort(self) -> None:
        """Cut the socket now."""

    async def accept(self, subprotocol: str | None) -> None:
        """Answer the handshake, if the framework has not done it."""

    async def refuse(self, status: int, text: str) -> None:
        """Refuse a handshake with an HTTP status; if it was answered already, close."""

    async def wait_close_begun(self) -> None:
        """Wait until the library was told of the :meth:`close`, or cannot be told any more."""

    def ignore_incoming(self) -> None:
        """Drop all received and further messages, so that the answer to a close gets through."""

    def watch(self, watcher: Watcher, ahead: Ahead) -> None:
        """Notice at once that the client leaves, also when no task reads: see :class:`Watcher`."""

    async def unwatch(self, watcher: Watcher) -> None:
        """End :meth:`watch`."""

    def reading(self) -> Reading:
        """How it is read, while it is watched."""

    def check_sending(self) -> None:
        """Raise NotAcceptedError when nothing can be sent before the handshake is answered."""

    def can_read(self) -> bool:
        """Whether :meth:`receive` can give messages."""

    def refusal(self, error: ClusterPoolError, status: int, text: str) -> ClusterPoolError:
        """The error to raise for a refused handshake: ``error``, as the framework needs it."""

    def closing_of(self, error: Exception) -> tuple[int, str] | None:
        """The close code and reason that an error of the framework's own asks for, if it does.

        The framework does not close for it then.
        """

    async def alive(self, within: float) -> bool:
        """Whether the client shows within so many seconds that it lives, by a pong or otherwise.

        True if that cannot be found out: the library has no way to send a ping (ASGI has none),
        or the socket is not being read at the moment. False when the socket is gone.
        """

    def hears_pongs(self) -> bool:
        """Whether :meth:`ping` can be used: the library sends pings, and tells of pongs."""

    def ping(self, payload: bytes, heard: Heard) -> None:
        """Send a ping behind what was written, unless the WebSocket is closing; never blocks.

        Args:
            payload: one that no ping of this WebSocket had.
            heard: called with the payload of each pong that comes, in place of an earlier one.
        """

    def close_answer(self) -> int | None:
        """The code of the client's Close that came behind ours; None if none came, or unknown."""

    async def wait_closed(self) -> None:
        """Wait until the socket is gone, after :meth:`close`."""

    async def receive(self) -> Message:
        """The next message; raises TransportClosed at the end."""
