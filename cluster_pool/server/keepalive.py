"""Pings for every open WebSocket of a node, from one task.

A client that answers nothing from one ping to the next is gone, whatever TCP believes: there may be
a proxy in between that acknowledges everything. No WebSocket has a task or a timer of its own. What
cannot be read at the moment, because its reader is slow, is not judged: the answer may be waiting
behind it, and a client must not pay for our backlog.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from websockets.asyncio.server import ServerConnection
from websockets.protocol import CLOSED, CONNECTING, OPEN

from cluster_pool.core.closing import ABNORMAL, INTERNAL_ERROR
from cluster_pool.local.connection import Connection
from cluster_pool.server.departures import Departures
from cluster_pool.server.frames import FRAME, Frames
from cluster_pool.server.intake import Intake

PING: Final = b"\x89\x00"
"""A whole ping frame (RFC 6455 section 5.5.2). Control frames may stand between the fragments of a
message and are never compressed, so it can be written at any time."""
SLICES: Final = 20
"""The pings of one interval leave in this many portions."""
YIELD_EVERY: Final = 200
SMALL: Final = 4096
FEW: Final = 16
"""Bytes, and frames, of one client that are not worth being counted."""
UNREAD: Final = 65536
"""Bytes that wait to be written to a client that goes on talking, before it is looked at: the
library answers each of its pings, also when it reads none of the answers."""


class NodeWebSocket(ServerConnection):
    """A WebSocket of a node: knows its member, and whether anything came from its client."""

    __slots__ = (
        *("departures", "handled", "heard", "held", "ignored", "intake", "keepalive_slice"),
        *("frames", "member", "pinger"),
    )

    def __init__(
        self,
        *arguments: Any,
        keepalive: "Keepalive",
        departures: Departures,
        intake: Intake,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.heard = True
        self.member: Connection | None = None
        self.departures = departures
        self.intake = intake
        self.held = 0
        """What the intake counts of it."""
        self.handled = False
        """Whether there is, or was, a handler that may take its messages."""
        self.ignored = False
        """Whether nobody ever will again."""
        self.pinger = keepalive
        self.keepalive_slice = keepalive.next_slice()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected; nothing is known about it yet."""
        super().connection_made(transport)
        self.frames = self.recv_messages.frames = Frames(self._frame_taken)
        self.keepalive_slice.add(self)

    def data_received(self, data: bytes) -> None:
        """Bytes came, perhaps only a part of a large message: there is somebody."""
        self.heard = True
        super().data_received(data)
        waiting = len(data) > SMALL or len(self.protocol.reader.buffer) > SMALL
        if waiting or self.held or len(self.frames.queue) > FEW:
            self.intake.received(self)
        member = self.member
        if member is not None and self.transport.get_write_buffer_size() > UNREAD:
            self.loop.call_soon(member.judge)

    @property
    def whole(self) -> bool:
        """Whether a message, or a part of one, waits that nobody has begun to take."""
        return bool(self.frames.queue)

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for its next message, or for the rest of it."""
        return self.frames.get_waiter is not None

    def count(self) -> int:
        """Bytes held here: frames, whole and half, and those of a message that is not complete."""
        frames = self.frames
        waiting = len(frames.queue)
        parts = frames.size + waiting * FRAME if waiting else self.protocol.current_size or 0
        return parts + len(self.protocol.reader.buffer)

    def _frame_taken(self) -> None:
        """Somebody took a frame, or begins to wait for one."""
        if self.held or self.frames.paused:
            self.intake.changed(self)

    def ignore(self) -> None:
        """What it says is dropped from now on, and what it has said."""
        self.ignored = True
        if not self.frames.queue:
            self.frames.size = 0
        if self.protocol.state is CLOSED:
            self.intake.forget(self)
        else:
            self.intake.changed(self)

    def eof_received(self) -> bool:  # type: ignore[override]  # theirs never keeps it open
        """The client says nothing more; True keeps the transport open until this has its turn."""
        if self.protocol.state is CONNECTING and self.request is not None:
            self.protocol.state = CLOSED  # at once, so that it takes no id from anybody
        self.departures.add(self._end_of_stream)
        return True

    def _end_of_stream(self) -> None:
        super().eof_received()
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: so is its member, also when nobody is reading from it."""
        self.protocol.state = CLOSED  # at once, so that nobody writes any more
        self.departures.add(partial(self._lost, exc))

    def _lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.ignored or not self.handled:
            self.intake.forget(self)
        else:
            self.intake.left(self)
        self.keepalive_slice.discard(self)
        self._end_member()
        self.pinger.on_gone(self)

    def own(self, member: Connection) -> None:
        """From now on ``member`` ends with this WebSocket, which may be gone already."""
        self.member = member
        if self.protocol.state is CLOSED:
            self._end_member()

    def _end_member(self) -> None:
        member = self.member
        if member is not None:
            if member.close_code is None:
                member.close_code = self.close_code or ABNORMAL
                member.close_reason = self.close_reason or ""
            member.sweep(self.loop.time())


class Keepalive:
    """All WebSockets of a node, in slices; one slice is pinged at a time.

    Args:
        interval: seconds from one ping of a WebSocket to the next.
        on_gone: called with each WebSocket whose client is gone.
    """

    def __init__(self, interval: float, on_gone: Callable[["NodeWebSocket"], None]) -> None:
        self.on_gone = on_gone
        self._period = interval / SLICES
        self._slices: list[set[NodeWebSocket]] = [set() for _ in range(SLICES)]
        self._next = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ping."""
        self._task = asyncio.create_task(self._run(), name="cluster_pool keepalive")

    async def stop(self) -> None:
        """Ping no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def next_slice(self) -> set[NodeWebSocket]:
        """Where the next WebSocket belongs; they take turns."""
        self._next = (self._next + 1) % SLICES
        return self._slices[self._next]

    def abort_all(self) -> None:
        """Cut every client, also those that have not asked for anything yet."""
        for members in self._slices:
            for websocket in list(members):
                websocket.transport.abort()

    async def _run(self) -> None:
        while True:
            for members in self._slices:
                await asyncio.sleep(self._period)
                for at, websocket in enumerate(list(members)):
                    _ping(websocket)
                    if at % YIELD_EVERY == YIELD_EVERY - 1:
                        await asyncio.sleep(0)


def _ping(websocket: NodeWebSocket) -> None:
    """Ping one WebSocket, or close it when the last ping found nobody."""
    tcp, member = websocket.transport, websocket.member
    if member is None or websocket.protocol.state is not OPEN or tcp.is_closing():
        return
    judged = tcp.is_reading()
    if judged and not websocket.heard:
        member.kick(INTERNAL_ERROR, "no answer to a ping")
        return
    websocket.heard = not judged
    tcp.write(PING)
