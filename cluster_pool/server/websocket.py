"""One WebSocket of a node: what its client sends, in turns and within bounds, and how it ends.

Owns the reading side between the socket and the queue of frames: which bytes are parsed when, what
counts as noise, and that the member ends with its WebSocket. Whether a client may be read from is
for :mod:`.intake`, whose turn it is for :mod:`.turns`, whether it is alive for :mod:`.keepalive`.
No WebSocket has a task or a timer of its own.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final, cast

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import InvalidMessage
from websockets.frames import BINARY, CONT, TEXT, Frame
from websockets.http11 import Request
from websockets.protocol import CLOSED, CONNECTING, OPEN, SEND_EOF, Event, Protocol

from cluster_pool.core.closing import ABNORMAL, NORMAL, POLICY
from cluster_pool.local import reading
from cluster_pool.local.closing import note_end
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import begin_close, judge
from cluster_pool.server.disconnect_queue import DisconnectQueue
from cluster_pool.server.frames import FRAME, Frames
from cluster_pool.server.intake import Intake
from cluster_pool.server.keepalive import Keepalive
from cluster_pool.server.newcomers import PATIENCE, Newcomers, protocol_of
from cluster_pool.server.turns import TINY, Inflating, Turns, read_in_turns

DATA: Final = (TEXT, BINARY, CONT)
NO_REQUEST: Final = Request("/", Headers())
"""Stands for a handshake that is no longer needed; a real one takes kilobytes."""
SMALL: Final = 4096
FEW: Final = 16
"""Bytes and frames of one client that are not worth counting."""
NOISE: Final = 100
"""Frames a second that are no messages and that any client may send."""
UNREAD: Final = 65536
"""Bytes that wait to be written to a client that goes on talking, before its outbox is judged: the
library answers each of its pings, even if the client reads none of the answers."""


class NodeWebSocket(ServerConnection):
    """A WebSocket that knows its member, and reads from its client in turns.

    Args:
        keepalive: pings it.
        disconnects: where the end of a connection waits to be dealt with.
        intake: counts what is received and taken by nobody yet.
        turns: grants frames to parse in this turn of the loop.
        newcomers: decides whether a descriptor is left for it.
        on_gone: called with it when its client is gone.

    Attributes:
        closing: whether the last round of pings found it closing.
        deaf: whether nothing is read from it any more.
        ended: whether its client has said that nothing more comes.
        handled: whether a handler takes its messages, or did.
        heard: whether anything came since the last ping.
        held: bytes that the intake counts of it.
        ignored: whether no handler takes a message of it any more.
        member: the connection that it is, once its id is claimed.
        noise_due: when its noise would have come, had it come at the rate that is allowed.
        unparsed: whether it waits for its turn to have more parsed.
    """

    __slots__ = (
        *("closing", "deaf", "disconnects", "ended", "frames", "handled", "heard", "held"),
        *("ignored", "intake", "keepalive_slice", "member", "newcomers", "noise_due", "on_gone"),
        *("reader", "turns", "unparsed"),
    )

    def __init__(
        self,
        *arguments: Any,
        keepalive: Keepalive,
        disconnects: DisconnectQueue,
        intake: Intake,
        turns: Turns,
        newcomers: Newcomers,
        on_gone: "Callable[[NodeWebSocket], None]",
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        self.reader = read_in_turns(self.protocol)
        self.keepalive_slice = keepalive.next_slice()
        self.disconnects = disconnects
        self.intake = intake
        self.turns = turns
        self.newcomers = newcomers
        self.on_gone = on_gone
        self.member: Connection | None = None
        self.held = 0
        self.noise_due = 0.0
        self.heard = True
        self.closing = self.deaf = self.ended = False
        self.handled = self.ignored = self.unparsed = False

    # -- beginning -------------------------------------------------------------------------

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

    def count_inflated(self) -> None:
        """Count what the client compresses by its size after decompression.

        Called when the handshake is judged.
        """
        protocol, reader = self.protocol, self.reader
        protocol.extensions = [Inflating(one, reader) for one in protocol.extensions]

    def own(self, member: Connection) -> None:
        """End ``member`` with this WebSocket from now on; it may be gone already."""
        self.member = member
        if self.protocol.state is CLOSED:
            self._end_member()

    def opened(self) -> None:
        """The handshake is answered and a handler begins: parse what the client has sent ahead."""
        self.request, self.response = NO_REQUEST, None
        self.handled = True
        protocol = self.protocol
        if protocol.state is OPEN and not self.reader.begun:
            # The parser would keep the whole request, two kilobytes, for as long as it lives.
            protocol.parser = Protocol.parse(protocol)
            next(protocol.parser)
        if self.reader.buffer:
            self._wait_for_turn()

    # -- reading ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes came, perhaps only a part of a large message: the client is there."""
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
            self.loop.call_soon(judge, member)

    def _read_request(self, data: bytes) -> None:
        """Read the request; bytes that are none are answered all the same.

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
        """Parse so many frames at most; the rest waits for its turn."""
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

    def process_event(self, event: Event) -> None:
        """Queue a frame of a message in one call; the library's own way takes three."""
        if isinstance(event, Frame) and event.opcode in DATA:
            self.recv_messages.put(event)
        else:
            super().process_event(event)

    def _wait_for_turn(self) -> None:
        self.unparsed = True
        if not self._full():
            self.turns.wait(self._go_on)

    def _full(self) -> bool:
        """Whether so much is parsed and not taken that the rest stays in bytes.

        A frame takes fifty times the memory of the bytes that it came in.
        """
        frames = self.frames
        waiting = len(frames.queue)
        return waiting > 0 and not self.intake.has_room(frames.size + waiting * FRAME)

    def _go_on(self, share: int) -> None:
        """Parse on: its turn has come."""
        if self.protocol.state is CLOSED:
            self.unparsed = False  # the socket is gone
        elif self._full():
            return  # taking a frame makes it wait again
        else:
            self.unparsed = False
            self._parse(b"", share, counts=True)
            self.intake.changed(self)
        if self.ended and not self.unparsed:
            self.disconnects.add(self._end_of_stream)

    def _count_noise(self, frames: int) -> None:
        """Count frames that no reader will count, and cut a client that sends too many.

        Noise is control frames, small parts of a message, and every frame of a client that no
        handler listens to. As many are allowed as messages, and a few if those are few.
        """
        rate, now = max(self.intake.rate, NOISE), self.loop.time()
        self.noise_due = max(self.noise_due, now) + frames / rate
        if self.noise_due - now <= 1:
            return
        if self.member is not None:
            reading.flood(self.member, rate, "frames")
        self._hear_no_more()

    def _hear_no_more(self) -> None:
        """Close with 1008 and read no more: TCP holds the client up until the socket is cut."""
        self.deaf = True
        self.protocol.fail(POLICY, "too many frames")
        self.send_data()
        self.reader.discard()
        if not self.transport.is_closing():
            self.transport.pause_reading()

    # -- what the intake asks --------------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Whether a message, or a part of one, waits that no handler has begun to take."""
        return bool(self.frames.queue) or self.unparsed

    @property
    def wanted(self) -> bool:
        """Whether a handler waits for its next message, or for the rest of it."""
        return self.frames.get_waiter is not None

    def count(self) -> int:
        """Bytes held here: of frames, of what is not parsed, and of an unfinished message."""
        frames = self.frames
        waiting = len(frames.queue)
        partial = 0 if frames.partial is None else len(frames.partial.data)
        return frames.size + waiting * FRAME + partial + len(self.reader.buffer)

    def _frame_taken(self) -> None:
        """A handler took a frame, or begins to wait for one."""
        if self.unparsed:
            self._wait_for_turn()
        if self.held or self.frames.paused:
            self.intake.changed(self)

    def ignore(self) -> None:
        """Drop what the client says from now on, and what it has said."""
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

    # -- writing ---------------------------------------------------------------------------

    def send_data(self) -> None:
        """Write what the library has to say, many answers to pings in one write.

        Every end of the protocol passes here: the answer to a Close, and an error that the parser
        finds or (text that is no UTF-8) the reader of a message.
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
        if self.ended and protocol.eof_sent:  # the answer to a client that says nothing more
            self.disconnects.add(self._end_of_stream)

    # -- ending ----------------------------------------------------------------------------

    def _protocol_ended(self) -> None:
        """The client has sent a Close, or what is no WebSocket: from now on it is no member."""
        member, close = self.member, self.protocol.close_rcvd
        if member is not None and not member.closed:
            begin_close(member, *(ABNORMAL, "") if close is None else (close.code, close.reason))

    def eof_received(self) -> bool:  # type: ignore[override]  # theirs never keeps it open
        """The client says nothing more; True keeps the transport open until this has its turn.

        A request that asks for no WebSocket is complete and is answered, as many tools ask.
        """
        request = self.request
        if request is not None and self._unanswered() and "Upgrade" in request.headers:
            self.protocol.state = CLOSED  # at once, so that it takes no id from anybody
        self.disconnects.add(self._end_of_stream)
        return True

    def _unanswered(self) -> bool:
        """Whether its request has come and is not answered yet."""
        protocol = self.protocol
        asked = self.request is not None and protocol.state is CONNECTING
        return asked and not protocol.eof_sent

    def _end_of_stream(self) -> None:
        self.ended = True
        if self._unanswered():
            return  # this comes again when it is
        if self.unparsed:  # it is heard to its end, but not for long, and is no member any more
            if self.member is not None:
                begin_close(self.member, NORMAL, "")
            return
        super().eof_received()
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: so is its member, also when no handler reads from it."""
        self.protocol.state = CLOSED  # at once, so that nothing is written any more
        self.disconnects.add(partial(self._lost, exc))

    def _lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.ignored or not self.handled:
            self.intake.forget(self)
        else:
            self.intake.left(self)
        self.keepalive_slice.discard(self)
        self._end_member()
        self.on_gone(self)

    def _end_member(self) -> None:
        member = self.member
        if member is not None:
            note_end(member, self.close_code or ABNORMAL, self.close_reason or "")
