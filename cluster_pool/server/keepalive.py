"""Pings for every open WebSocket of a node, from one task.

A client that answers nothing from one ping to the next is gone, whatever TCP believes: there may be
a proxy in between that acknowledges everything. No WebSocket has a task or a timer of its own. What
cannot be read at the moment, because its reader is slow, is not judged: the answer may be waiting
behind it, and a client must not pay for our backlog.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import InvalidMessage
from websockets.frames import BINARY, CONT, TEXT, Frame
from websockets.protocol import CLOSED, CLOSING, CONNECTING, OPEN, SEND_EOF, Event, Protocol

from cluster_pool.core.closing import ABNORMAL, INTERNAL_ERROR, NORMAL, POLICY
from cluster_pool.local.connection import Connection
from cluster_pool.server.disconnect_queue import DisconnectQueue
from cluster_pool.server.frames import FRAME, Frames
from cluster_pool.server.intake import Intake
from cluster_pool.server.newcomers import PATIENCE, Newcomers, protocol_of
from cluster_pool.server.turns import TINY, Inflating, Turns, read_in_turns

DATA: Final = (TEXT, BINARY, CONT)
PING: Final = b"\x89\x00"
"""A whole ping frame (RFC 6455 section 5.5.2). Control frames may stand between the fragments of a
message and are never compressed, so it can be written at any time."""
SLICES: Final = 20
"""The pings of one interval leave in this many portions."""
YIELD_EVERY: Final = 200
SMALL: Final = 4096
FEW: Final = 16
"""Bytes, and frames, of one client that are not worth being counted."""
NOISE: Final = 100
"""Frames a second that are no messages and that any client may send."""
UNREAD: Final = 65536
"""Bytes that wait to be written to a client that goes on talking, before it is looked at: the
library answers each of its pings, also when it reads none of the answers."""


class NodeWebSocket(ServerConnection):
    """A WebSocket of a node: knows its member, and whether anything came from its client."""

    __slots__ = (
        *("closing", "deaf", "departures", "ended", "frames", "handled", "heard", "held"),
        *("ignored", "intake", "keepalive_slice", "member", "noise_due", "pinger", "reader"),
        *("newcomers", "turns", "unparsed"),
    )

    def __init__(
        self,
        *arguments: Any,
        keepalive: "Keepalive",
        departures: DisconnectQueue,
        intake: Intake,
        turns: Turns,
        newcomers: Newcomers,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.reader = read_in_turns(self.protocol)
        self.turns = turns
        self.newcomers = newcomers
        self.unparsed = False
        """Whether it waits for its turn to have more parsed."""
        self.ended = False
        """Whether nothing comes behind that."""
        self.noise_due = 0.0
        """When the frames that are no messages would have come at the rate that is allowed."""
        self.deaf = False
        """Whether it is not read from any more."""
        self.closing = False
        """Whether the last round of pings found it closing."""
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
        tcp = cast("asyncio.Transport", transport)  # uvloop's is none by type
        if not self.newcomers.admit(tcp):
            return
        super().connection_made(tcp)
        self.frames = self.recv_messages.frames = Frames(self._frame_taken)
        self.keepalive_slice.add(self)
        if self.newcomers.crowded(tcp):
            self.loop.call_later(PATIENCE, self._cut_if_no_member)

    def _cut_if_no_member(self) -> None:
        if self.member is None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes came, perhaps only a part of a large message: there is somebody."""
        self.heard = True
        size = len(data)
        if self.request is None and self.protocol.handshake_exc is None:
            self._read_request(data)
            return
        tiny = size <= TINY and not self.protocol.extensions
        if self.unparsed:
            share = 0
        elif tiny:
            share = TINY
        else:
            share = self.turns.share(size)
        if share:
            self._parse(data, share, counts=not tiny)
        else:
            self.reader.feed_data(data)
            self._wait_for_turn()
        waiting = size > SMALL or len(self.reader.buffer) > SMALL
        if waiting or self.held or len(self.frames.queue) > FEW:
            self.intake.received(self)
        member = self.member
        if member is not None and self.transport.get_write_buffer_size() > UNREAD:
            self.loop.call_soon(member.judge)

    def _read_request(self, data: bytes) -> None:
        """It has asked for nothing yet; what cannot be read as a request is answered all the same.

        Other protocols may never end a line: with one it is seen at once that they are no request.
        """
        if protocol_of(data) and not self.reader.buffer:  # else it is from the middle of a line
            data += b"\r\n\r\n"
        self.protocol.receive_data(data)
        if isinstance(self.protocol.handshake_exc, InvalidMessage):
            peer = self.transport.get_extra_info("peername")
            self.transport.write(self.newcomers.no_http(data, peer))
        super().data_received(b"")

    def _parse(self, data: bytes, share: int, *, counts: bool) -> None:
        """Parse so many frames at most; what is left waits for its turn."""
        reader, frames, protocol = self.reader, self.frames, self.protocol
        if protocol.state is CONNECTING and not protocol.eof_sent:
            share = 0  # what stands behind a request waits until that is answered
        elif protocol.extensions and not self.intake.has_room(0):
            share = min(share, 1)  # it may become a message of any size
        counted, begun = frames.counted, reader.begun
        reader.left = share
        super().data_received(data)
        parsed = reader.begun - begun
        if counts:
            self.turns.spent(share - reader.left)
        if parsed > frames.counted - counted and not self.deaf:
            self._count_noise(parsed - frames.counted + counted)
        if share and reader.left <= 0 and reader.buffer:
            self._wait_for_turn()

    def send_data(self) -> None:
        """Write what the library has to say, many answers to pings at once.

        Whatever ends the protocol is said: an answer to a Close, or what was wrong, which the
        parser finds, or (text that is no UTF-8) whoever takes the message.
        """
        protocol, writes = self.protocol, self.protocol.writes
        if not writes:
            return
        if len(writes) > 1:
            end = [SEND_EOF] if writes[-1] == SEND_EOF else []
            protocol.writes = [b"".join(writes), *end]
        super().send_data()
        if protocol.state is not OPEN and protocol.state is not CONNECTING:
            self._protocol_ended()
        if self.ended and protocol.eof_sent:  # the answer to who says nothing more
            self.departures.add(self._end_of_stream)

    def process_event(self, event: Event) -> None:
        """As the library's, which takes three calls for what nearly every event is."""
        if isinstance(event, Frame) and event.opcode in DATA:
            self.recv_messages.put(event)
        else:
            super().process_event(event)

    def _wait_for_turn(self) -> None:
        self.unparsed = True
        if not self._full():
            self.turns.wait(self._go_on)

    def _full(self) -> bool:
        """Whether so much is parsed and not taken that the rest stays as it came: a frame takes
        fifty times the memory of the bytes that it came in."""
        frames = self.frames
        waiting = len(frames.queue)
        return waiting > 0 and not self.intake.has_room(frames.size + waiting * FRAME)

    def _go_on(self, share: int) -> None:
        """Its turn has come."""
        if self.protocol.state is CLOSED:
            self.unparsed = False  # the socket is gone
        elif self._full():
            return  # whoever takes a frame has it wait again
        else:
            self.unparsed = False
            self._parse(b"", share, counts=True)
            self.intake.changed(self)
        if self.ended and not self.unparsed:
            self.departures.add(self._end_of_stream)

    def count_inflated(self) -> None:
        """The handshake is judged: what it may compress counts as what that is."""
        protocol, reader = self.protocol, self.reader
        protocol.extensions = [Inflating(one, reader) for one in protocol.extensions]

    def read_on(self) -> None:
        """The handshake is answered: parse what the client has sent without waiting for that."""
        protocol = self.protocol
        if protocol.state is OPEN and not self.reader.begun:
            # The parser would keep the whole request, two kilobytes, for as long as it lives.
            protocol.parser = Protocol.parse(protocol)
            next(protocol.parser)
        if self.reader.buffer:
            self._wait_for_turn()

    def _count_noise(self, frames: int) -> None:
        """Frames that no reader will count: control frames, small parts of a message, and all of
        whom nobody listens to. As many are allowed as messages, and a few for who may say little.
        """
        rate, now = max(self.intake.rate, NOISE), self.loop.time()
        self.noise_due = max(self.noise_due, now) + frames / rate
        if self.noise_due - now <= 1:
            return
        if self.member is not None:
            self.member.flood(rate, "frames")
        self._hear_no_more()

    def _hear_no_more(self) -> None:
        """Say that this is the end, and read no more: TCP holds it up until the socket is cut."""
        self.deaf = True
        self.protocol.fail(POLICY, "too many frames")
        self.send_data()
        self.reader.discard()
        if not self.transport.is_closing():
            self.transport.pause_reading()

    def _protocol_ended(self) -> None:
        """The client has sent a Close, or what is no WebSocket: from now on it is no member."""
        member, close = self.member, self.protocol.close_rcvd
        if member is not None and not member.closed:
            member.begin_close(*(ABNORMAL, "") if close is None else (close.code, close.reason))

    @property
    def whole(self) -> bool:
        """Whether a message, or a part of one, waits that nobody has begun to take."""
        return bool(self.frames.queue) or self.unparsed

    @property
    def wanted(self) -> bool:
        """Whether somebody waits for its next message, or for the rest of it."""
        return self.frames.get_waiter is not None

    def count(self) -> int:
        """Bytes held here: frames, whole and half, and those of a message that is not complete."""
        frames = self.frames
        waiting = len(frames.queue)
        partial = 0 if frames.partial is None else len(frames.partial.data)
        return frames.size + waiting * FRAME + partial + len(self.reader.buffer)

    def _frame_taken(self) -> None:
        """Somebody took a frame, or begins to wait for one."""
        if self.unparsed:
            self._wait_for_turn()
        if self.held or self.frames.paused:
            self.intake.changed(self)

    def ignore(self) -> None:
        """What it says is dropped from now on, and what it has said."""
        self.ignored = True
        self.frames.partial = None
        if not self.frames.queue:
            self.frames.size = 0
        if self.unparsed:
            self._wait_for_turn()
        if self.protocol.state is CLOSED:
            self.intake.forget(self)
        else:
            self.intake.changed(self)

    def eof_received(self) -> bool:  # type: ignore[override]  # theirs never keeps it open
        """The client says nothing more; True keeps the transport open until this has its turn.

        A request that asks for no WebSocket is complete and is answered, as many tools ask.
        """
        request = self.request
        if request is not None and self._unanswered() and "Upgrade" in request.headers:
            self.protocol.state = CLOSED  # at once, so that it takes no id from anybody
        self.departures.add(self._end_of_stream)
        return True

    def _unanswered(self) -> bool:
        """Whether its request is there, and no answer."""
        protocol = self.protocol
        asked = self.request is not None and protocol.state is CONNECTING
        return asked and not protocol.eof_sent

    def _end_of_stream(self) -> None:
        self.ended = True
        if self._unanswered():
            return  # this comes again when it is
        if self.unparsed:  # it is heard to its end, but not for long, and is no member any more
            if self.member is not None:
                self.member.begin_close(NORMAL, "")
            return
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
    if websocket.protocol.state is CLOSING:
        _cut_if_late(websocket)
    if member is None or websocket.protocol.state is not OPEN or tcp.is_closing():
        return
    judged = tcp.is_reading()
    if judged and not websocket.heard:
        member.kick(INTERNAL_ERROR, "no answer to a ping")
        return
    websocket.heard = not judged
    tcp.write(PING)


def _cut_if_late(websocket: NodeWebSocket) -> None:
    """Cut who has said that it leaves, or was told to, and is still here in the next round."""
    member = websocket.member
    over = websocket.protocol.eof_sent or member is None
    if websocket.closing and (over or (member and websocket.loop.time() >= member.deadline)):
        if member is None or member.gone:
            websocket.transport.abort()
        else:
            member.cut()
    websocket.closing = True
