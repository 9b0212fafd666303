"""The interface between a connection and the WebSocket of some library."""

import enum
import http
from dataclasses import dataclass
from typing import Final, Protocol

from cluster_pool.core.closing import (
    ABNORMAL,
    MAX_REASON_BYTES,
    POLICY,
    TAKEN_OVER,
    TRY_AGAIN_LATER,
)
from cluster_pool.core.message import Message, Outgoing
from cluster_pool.core.request import Request
from cluster_pool.exceptions import ClusterPoolError

FINAL: Final = (http.HTTPStatus.BAD_REQUEST, http.HTTPStatus.FORBIDDEN)
OVERHEAD: Final = 512
"""Bytes that what is read ahead takes beside each message, so that empty ones are bounded, too."""


def refusal_close(status: int, text: str) -> tuple[int, str]:
    """The close code and the reason that say to an open WebSocket what a status would have said.

    A reason is shorter than the body of an answer may be: what does not fit is left out.
    """
    reason = text.encode()[:MAX_REASON_BYTES].decode(errors="ignore")
    if status in FINAL:
        return POLICY, reason
    return (TAKEN_OVER if status == http.HTTPStatus.CONFLICT else TRY_AGAIN_LATER), reason


class TransportClosed(Exception):
    """The WebSocket is closed; raised by :meth:`Transport.receive`.

    Attributes:
        code, reason: what the peer or we said; 1006 when the socket was lost.
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
        patience: seconds after which a reader that takes nothing counts as none.
        held: bytes that are here now.
    """

    one: int
    all: int
    patience: float
    held: int = 0


class Watcher(Protocol):
    """An observer of a WebSocket, told at once also while no task reads it."""

    def departed(self, code: int, reason: str) -> None:
        """The client has sent a Close, broken the protocol, or is gone; told once."""

    def dropped(self, *, first: bool) -> None:
        """A message was dropped: no task reads, and there is no room for it."""


class Reading(enum.Enum):
    """How a WebSocket that is watched is read, beside what its connection reads.

    Untouched: nobody has read it. Unread: the same, and messages are there. Elsewhere: somebody
    reads it by the library's own means. Waited: and waits for a message right now.
    """

    UNTOUCHED = "untouched"
    UNREAD = "unread"
    ELSEWHERE = "elsewhere"
    WAITED = "waited"


class Writer(Protocol):
    """The writing side of a WebSocket. What is written leaves in order; nothing here blocks."""

    def descriptor(self) -> int:
        """File descriptor to write a frame to directly, or -1 if that is unsafe now.

        Where it is -1, :meth:`write` knows what to do.
        """

    def write(self, outgoing: Outgoing, written: int = 0) -> int:
        """Hand messages over. Gives what is buffered then, -1 when the WebSocket is not open.

        ``written`` bytes of the frame have gone to the :meth:`descriptor` already.

        A loop may try the kernel only at the end of its turn (uvloop does), so what is buffered
        right after a write says little; a turn later it is what the kernel would not take.
        """

    def buffered(self) -> int:
        """Bytes that the kernel has not taken yet."""

    def bytes_written(self) -> int:
        """Bytes that the kernel has taken so far: while this grows, the peer reads."""


class Transport(Protocol):
    """A WebSocket. A close goes behind what its writer was given.

    Only ``accept`` and ``receive`` wait; nothing here waits for a slow peer.
    """

    @property
    def writer(self) -> Writer:
        """Its writing side, the same for as long as it lives."""

    def request(self) -> Request:
        """The client's request; an empty one where the library does not tell."""

    def is_answered(self) -> bool:
        """Whether the handshake has been answered, so that :meth:`accept` does nothing."""

    def is_closed(self) -> bool:
        """Whether the socket is gone."""

    def close(self, code: int, reason: str) -> None:
        """Begin the close handshake behind what was written; never blocks."""

    def abort(self) -> None:
        """Cut the socket now."""

    async def accept(self, subprotocol: str | None) -> None:
        """Answer the handshake, where the framework leaves that to us."""

    async def refuse(self, status: int, text: str) -> None:
        """Decline a handshake with an HTTP status; where it was answered already, close."""

    async def wait_close_begun(self) -> None:
        """Wait until the library was told of the :meth:`close`, or cannot be told any more."""

    def ignore_incoming(self) -> None:
        """Drop what has come and what comes, so that the answer to a close gets through."""

    def watch(self, watcher: Watcher, ahead: Ahead) -> None:
        """Notice a departure at once, also when no task reads: see :class:`Watcher`."""

    async def unwatch(self, watcher: Watcher) -> None:
        """No more of :meth:`watch`."""

    def reading(self) -> Reading:
        """How it is read, while it is watched."""

    def check_sending(self) -> None:
        """Raise NotAcceptedError when nothing can be sent before the handshake is answered."""

    def can_read(self) -> bool:
        """Whether :meth:`receive` ever gives a message."""

    def refusal(self, error: ClusterPoolError, status: int, text: str) -> ClusterPoolError:
        """The error to raise for a refused handshake: ``error``, made known to a framework."""

    async def alive(self, within: float) -> bool:
        """Whether the client gives a sign of life within so many seconds, to a ping or by itself.

        True, too, where that cannot be told: nobody is judged whom the library gives no way to
        ask (ASGI has none), or of whom nothing is read at the moment. False when the socket is
        gone.
        """

    async def wait_closed(self) -> None:
        """Wait until the socket is gone, after :meth:`close`."""

    async def receive(self) -> Message:
        """The next message; raises TransportClosed at the end."""
