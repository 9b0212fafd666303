"""Pings for every open WebSocket of a node, from one task.

A client that sends nothing from one ping to the next is gone, even if TCP acknowledges everything:
a proxy in between may do that. No WebSocket has a task or a timer of its own. A WebSocket that is
not read from at the moment, because its handler is slow, is not judged: the answer may be there,
unread, and a client must not be closed for the node's backlog.
"""

import asyncio
from typing import Final, Protocol

from websockets.protocol import CLOSING, OPEN
from websockets.server import ServerProtocol

from cluster_pool.core.closing import INTERNAL_ERROR
from cluster_pool.local import closing
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import kick, ping_unreceived
from cluster_pool.transports.frames import ping_frame

PING_INTERVAL: Final = 20.0
"""The default number of seconds between two pings of a WebSocket."""
PING: Final = ping_frame(b"")
"""It can be written at any time."""
SLICES: Final = 20
"""The pings of one interval are sent in this many portions."""
YIELD_EVERY: Final = 200


class Pinged(Protocol):
    """A WebSocket as the keepalive uses it.

    Attributes:
        heard: whether anything came since the last ping.
        closing: whether the last round found it closing.
        member: its connection; None before the claim.
    """

    transport: asyncio.Transport
    protocol: ServerProtocol
    loop: asyncio.AbstractEventLoop
    heard: bool
    closing: bool
    member: Connection | None


class Keepalive:
    """All WebSockets of a node, in slices; one slice is pinged at a time.

    Args:
        interval: seconds from one ping of a WebSocket to the next.
    """

    def __init__(self, interval: float) -> None:
        self._period = interval / SLICES
        self._slices: list[set[Pinged]] = [set() for _ in range(SLICES)]
        self._next = 0
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ping."""
        self._task = asyncio.create_task(self._run(), name="cluster_pool keepalive")

    async def stop(self) -> None:
        """Stop pinging."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def next_slice(self) -> set[Pinged]:
        """The slice that the next WebSocket belongs to; the slices take turns."""
        self._next = (self._next + 1) % SLICES
        return self._slices[self._next]

    def abort_all(self) -> None:
        """Cut every client, also those that have sent no request yet."""
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


def _ping(websocket: Pinged) -> None:
    """Ping one WebSocket, or close it if nothing came since the last ping."""
    tcp, member = websocket.transport, websocket.member
    if websocket.protocol.state is CLOSING:
        _cut_if_late(websocket)
    if member is None or websocket.protocol.state is not OPEN or tcp.is_closing():
        return
    judged = tcp.is_reading()
    if judged and not websocket.heard:
        kick(member, INTERNAL_ERROR, "no answer to a ping")
        return
    websocket.heard = not judged
    if not ping_unreceived(member):
        tcp.write(PING)


def _cut_if_late(websocket: Pinged) -> None:
    """Cut a client whose close has begun, by either side, and has not ended a round later."""
    member = websocket.member
    over = websocket.protocol.eof_sent or member is None
    if websocket.closing and (
        over or (member and websocket.loop.time() >= closing.deadline_of(member))
    ):
        if member is None or closing.is_gone(member):
            websocket.transport.abort()
        else:
            closing.cut(member)
    websocket.closing = True
