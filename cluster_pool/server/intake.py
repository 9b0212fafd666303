"""What clients of ``serve`` have sent and nobody has taken yet: counted, and bounded in bytes.

Above a limit the node stops reading, so that TCP holds the client up: a client above its own, and,
while the node is above its share, whoever has bytes here. Nobody waits for ever: while the node is
above, one client after another may finish the message that its reader waits for.
"""

import asyncio
from typing import Final, Protocol

from cluster_pool.cluster.inbound import SHARE, InboundChannel
from cluster_pool.core.config import Limits
from cluster_pool.server.frames import Frames

CHUNK: Final = 256 * 1024
"""Bytes: the most that asyncio and uvloop read at once."""
UNPARSED: Final = 64 * 1024
"""Bytes of one client that may wait to be parsed: more are not read, for a read takes time, too."""
TURN: Final = 0.1
"""Seconds that one client may take to finish its message while the node is above its share."""


class Client(Protocol):
    """A WebSocket, as far as what it has sent concerns the intake.

    Attributes:
        frames: the frames that wait for its handler.
        held: bytes of it that are counted here.
        deaf: whether nothing is read from it any more.
        ignored: whether no handler takes a message of it any more.
        unparsed: whether bytes of it wait for their turn to be parsed.
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
        """Whether a message, or a part of one, waits that no handler has begun to take."""

    @property
    def wanted(self) -> bool:
        """Whether a handler waits for its next message, or for the rest of it."""

    def count(self) -> int:
        """Bytes held of it."""


class Intake:
    """The bytes of all clients of a node, and whose reading is paused.

    Attributes:
        rate: messages that one client may send in a second.
    """

    def __init__(self, channel: InboundChannel, limits: Limits) -> None:
        self._channel = channel
        self.rate = limits.inbound_per_second
        self._one = limits.inbound_bytes
        self._all = limits.node_inbound_bytes - limits.node_inbound_bytes // SHARE
        self._full: dict[Client, None] = {}
        """Paused by themselves: they have as much here as one may."""
        self._queue: dict[Client, None] = {}
        """Paused by the node, in the order in which they read on."""
        self._let_through: Client | None = None
        self._timer: asyncio.TimerHandle | None = None
        channel.on_less = self._less

    def has_room(self, parsed: int) -> bool:
        """Whether a client of whom so many bytes wait as frames may have more of them."""
        return parsed <= self._one and self._room() >= 0

    def received(self, websocket: Client) -> None:
        """Bytes came: count them, and pause reading if they are too many."""
        self._count(websocket)
        if not websocket.frames.paused and not self._may_read(websocket):
            self._pause(websocket)
        if self._let_through is websocket and websocket.whole:
            self._let_next()

    def changed(self, websocket: Client) -> None:
        """A message was taken, or is waited for: read on if there is room now."""
        self._count(websocket)
        if websocket.frames.paused:
            if self._may_read(websocket):
                self._resume(websocket)
            elif websocket in self._full and not self._has_its_fill(websocket):
                del self._full[websocket]
                self._queue[websocket] = None
        self._less()

    def left(self, websocket: Client) -> None:
        """Nothing more comes from this one."""
        self._full.pop(websocket, None)
        self._queue.pop(websocket, None)
        if self._let_through is websocket:
            self._let_next()

    def forget(self, websocket: Client) -> None:
        """Nobody takes any more what it has sent."""
        self._channel.unread -= websocket.held
        websocket.held = 0
        self.left(websocket)
        self._less()

    def stop(self) -> None:
        """No more turns."""
        if self._timer is not None:
            self._timer.cancel()

    def _count(self, websocket: Client) -> None:
        held = websocket.count()
        self._channel.unread += held - websocket.held
        websocket.held = held

    def _room(self) -> int:
        """Bytes that may come yet; below 0 when the node holds more than its share."""
        return self._all - self._channel.unread - self._channel.waiting

    def _has_its_fill(self, websocket: Client) -> bool:
        limit = min(UNPARSED, self._one) if websocket.unparsed else self._one
        return websocket.held > limit and (websocket.whole or not websocket.wanted)

    def _may_read(self, websocket: Client) -> bool:
        if websocket.ignored:  # the answer to its close must get through, behind what is parsed
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
        """Some bytes are gone: let others read, as many as there may be room for."""
        if self._queue:
            room = self._room()
            while self._queue and room > 0:
                self._resume(next(iter(self._queue)))
                room -= CHUNK

    def _let_next(self) -> None:
        """Whoever waits longest with an unfinished message, and a reader that waits for it.

        Only while nothing else will make room: what waits to be published does.
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
        """Once in a while, as long as the node makes anybody wait: the next one has its turn."""
        self._timer = None
        last = self._let_through
        self._less()
        self._let_next()
        if last is not None and not last.frames.paused and not self._may_read(last):
            self._pause(last)
        if self._timer is None and (self._queue or self._let_through is not None):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(TURN, self._turn)
