"""Bounds the bytes that clients of ``serve`` have sent and no handler has read yet.

Above a limit the node stops reading from a client, so that TCP holds the client up. A client above
its own limit is paused; while the node is above its share, every client with unread bytes is.
No client waits for ever: while the node is above its share, one client after another may finish the
message that its handler waits for.
"""

import asyncio
from typing import Final, Protocol

from cluster_pool.cluster.inbound import SHARE, InboundChannel
from cluster_pool.core.config import Limits
from cluster_pool.server.frames import Frames

CHUNK: Final = 256 * 1024
"""Bytes that asyncio and uvloop read at once, at most."""
UNPARSED: Final = 64 * 1024
"""Bytes of one client that may wait to be parsed. More are not read: reading takes time, too."""
TURN: Final = 0.1
"""Seconds that one client has to finish its message while the node is above its share."""


class Client(Protocol):
    """A WebSocket as the intake uses it.

    Attributes:
        frames: the frames that wait for its handler.
        held: its bytes that are counted here.
        deaf: whether nothing is read from it any more.
        ignored: whether no handler reads its messages any more.
        unparsed: whether some of its bytes wait for their turn to be parsed.
    """

    transport: asyncio.Transport
    loop: asyncio.AbstractEventLoop
    frames: Frames
    held: int
    deaf: bool
    ignored: bool
    unparsed: bool

    @property
    def whole(self) -> bool:
        """Whether a message, or a part of one, waits that no handler has begun to read."""

    @property
    def wanted(self) -> bool:
        """Whether a handler waits for its next message, or for the rest of it."""

    def count(self) -> int:
        """Its bytes that are held."""


class Intake:
    """Counts the bytes of all clients of a node, and pauses and resumes reading from each.

    Attributes:
        rate: messages that one client may send in a second.
    """

    def __init__(self, channel: InboundChannel, limits: Limits) -> None:
        self._channel = channel
        self.rate = limits.inbound_per_second
        self._one = limits.inbound_bytes
        self._all = limits.node_inbound_bytes - limits.node_inbound_bytes // SHARE
        self._full: dict[Client, None] = {}
        """Clients that are paused because they are above their own limit."""
        self._queue: dict[Client, None] = {}
        """Clients that are paused because the node is above its share, the next to resume first."""
        self._let_through: Client | None = None
        self._timer: asyncio.TimerHandle | None = None
        channel.on_room(self._less)

    def has_room(self, parsed: int) -> bool:
        """Whether more of a client may be parsed, if ``parsed`` bytes of it wait in frames."""
        return parsed <= self._one and self._room() >= 0

    def received(self, websocket: Client) -> None:
        """Count bytes that came, and pause reading if they are too many."""
        self._count(websocket)
        if not websocket.frames.paused and not self._may_read(websocket):
            self._pause(websocket)
        if self._let_through is websocket and websocket.whole:
            self._let_next()

    def changed(self, websocket: Client) -> None:
        """Count again, after a message was read or waited for; resume reading if there is room."""
        self._count(websocket)
        if websocket.frames.paused:
            if self._may_read(websocket):
                self._resume(websocket)
            elif websocket in self._full and not self._has_its_fill(websocket):
                del self._full[websocket]
                self._queue[websocket] = None
        self._less()

    def ended(self, websocket: Client) -> None:
        """Forget a client that sends nothing more; its unread bytes are still counted."""
        self._full.pop(websocket, None)
        self._queue.pop(websocket, None)
        if self._let_through is websocket:
            self._let_next()

    def forget(self, websocket: Client) -> None:
        """Forget a client whose messages no handler reads any more, and its bytes."""
        self._channel.unread -= websocket.held
        websocket.held = 0
        self.ended(websocket)
        self._less()

    def stop(self) -> None:
        """End the timer."""
        if self._timer is not None:
            self._timer.cancel()

    def _count(self, websocket: Client) -> None:
        held = websocket.count()
        self._channel.unread += held - websocket.held
        websocket.held = held

    def _room(self) -> int:
        """Return the bytes that may still come; below 0 when the node is above its share."""
        return self._all - self._channel.unread - self._channel.waiting

    def _has_its_fill(self, websocket: Client) -> bool:
        limit = min(UNPARSED, self._one) if websocket.unparsed else self._one
        return websocket.held > limit and (websocket.whole or not websocket.wanted)

    def _may_read(self, websocket: Client) -> bool:
        if websocket.ignored:  # the answer to a close must get through, behind the parsed frames
            return not websocket.unparsed or websocket.held <= UNPARSED
        if self._has_its_fill(websocket):
            return False
        return not websocket.held or self._let_through is websocket or self._room() >= 0

    def _pause(self, websocket: Client) -> None:
        if websocket.transport.is_closing():
            return
        (self._full if self._has_its_fill(websocket) else self._queue)[websocket] = None
        websocket.frames.paused = True
        websocket.transport.pause_reading()
        if self._timer is None:
            self._timer = websocket.loop.call_later(TURN, self._turn)

    def _resume(self, websocket: Client) -> None:
        self._full.pop(websocket, None)
        self._queue.pop(websocket, None)
        websocket.frames.paused = False
        if not websocket.transport.is_closing() and not websocket.deaf:
            websocket.transport.resume_reading()

    def _less(self) -> None:
        """Resume clients that the node has paused, as far as there is room now."""
        if self._queue:
            room = self._room()
            while self._queue and room > 0:
                self._resume(next(iter(self._queue)))
                room -= CHUNK

    def _let_next(self) -> None:
        """Let the client read on that waits longest for the rest of a message.

        Nothing is done while messages wait to be published: those will make room.
        """
        self._let_through = None
        if self._channel.waiting:
            return
        for websocket in self._queue:
            if websocket.wanted and not websocket.whole:
                self._let_through = websocket
                self._resume(websocket)
                return

    def _turn(self) -> None:
        """Give the next client its turn; called every ``TURN`` while the node pauses clients."""
        self._timer = None
        last = self._let_through
        self._less()
        self._let_next()
        if last is not None and not last.frames.paused and not self._may_read(last):
            self._pause(last)
        if self._timer is None and (self._queue or self._let_through is not None):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(TURN, self._turn)
