"""One WebSocket of a node: reads its client in turns and within bounds, and ends its member.

Owns the reading side between the socket and the queue of frames: which bytes are parsed when, which
frames count as noise, and that the member ends with its WebSocket. :mod:`.intake` decides whether a
client may be read from, :mod:`.turns` whose turn it is, :mod:`.keepalive` whether it is alive. No
WebSocket has a task or a timer of its own.
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
from cluster_pool.local.closing import note_answer, note_end
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import begin_close, flush, judge
from cluster_pool.server.disconnect_queue import DisconnectQueue
from cluster_pool.server.frames import FRAME, Frames
from cluster_pool.server.handshake_bounds import HandshakeBounds
from cluster_pool.server.intake import Intake
from cluster_pool.server.keepalive import Keepalive
from cluster_pool.server.newcomers import PATIENCE, Newcomers, protocol_of
from cluster_pool.server.turns import TINY, Inflating, Turns, read_in_turns
from cluster_pool.transports.frames import write_ahead

DATA: Final = (TEXT, BINARY, CONT)
NO_REQUEST: Final = Request("/", Headers())
"""In place of the request of an answered handshake, which needs kilobytes."""
SMALL: Final = 4096
FEW: Final = 16
"""Bytes and frames of one client below which nothing is counted."""
NOISE: Final = 100
"""Frames per second that are no messages and that every client may send."""
UNREAD: Final = 65536
"""Bytes waiting to be written, from which on the outbox of a client that sends is checked: the
library answers each of its pings, even if the client reads none of the answers."""


class NodeWebSocket(ServerConnection):
    """A WebSocket that knows its member, and reads from its client in turns.

    Args:
        keepalive: pings it.
        disconnects: the queue in which the end of a connection waits to be handled.
        intake: counts bytes that were received and not read by a handler yet.
        turns: grants frames to parse in this turn of the loop.
        newcomers: decides whether a descriptor is left for it.
        bounds: decides whether its handshake may begin.
        on_gone: called with it when its client is gone.

    Attributes:
        closing: whether the last round of pings found it closing.
        deaf: whether nothing is read from it any more.
        ended: whether its client has ended the stream.
        handled: whether a handler reads its messages, or did.
        heard: whether anything came since the last ping.
        held: its bytes that the intake counts.
        ignored: whether no handler reads its messages any more.
        member: its connection, once the id is claimed.
        noise_due: when all its noise would have come at the allowed rate.
        unparsed: whether bytes of it wait for their turn to be parsed.
    """

    __slots__ = (
        *("bounds", "closing", "deaf", "disconnects", "ended", "frames", "handled", "heard"),
        *("held", "ignored", "intake", "keepalive_slice", "member", "newcomers", "noise_due"),
        *("on_gone", "reader", "turns", "unparsed"),
    )

    def __init__(
        self,
        *arguments: Any,
        keepalive: Keepalive,
        disconnects: DisconnectQueue,
        intake: Intake,
        turns: Turns,
        newcomers: Newcomers,
        bounds: HandshakeBounds,
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
        self.bounds = bounds
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
        if not self.newcomers.admit(tcp) or not self.bounds.admit(self, tcp):
            return
        super().connection_made(tcp)
        self.frames = self.recv_messages.frames = Frames(self._frame_read)
        self.keepalive_slice.add(self)
        if self.newcomers.crowded(tcp):
            self.loop.call_later(PATIENCE, self._cut_if_no_member)

    def _cut_if_no_member(self) -> None:
        if self.member is None:
            self.transport.abort()

    def count_inflated(self) -> None:
        """Count compressed frames by their size after decompression.

        Called while the handshake is checked.
        """
        protocol, reader = self.protocol, self.reader
        protocol.extensions = [Inflating(one, reader) for one in protocol.extensions]

    def own(self, member: Connection) -> None:
        """End ``member`` with this WebSocket from now on; it may be gone already."""
        self.member = member
        if self.protocol.state is CLOSED:
            self._end_member()

    def opened(self) -> None:
        """The handshake is answered and a handler begins: parse bytes that came before."""
        self.bounds.answered(self)
        self.request, self.response = NO_REQUEST, None
        self.handled = True
        protocol = self.protocol
        if protocol.state is OPEN and not self.reader.begun:
            # The parser would keep the whole request, two kilobytes, as long as it lives.
            protocol.parser = Protocol.parse(protocol)
            next(protocol.parser)
        if self.reader.buffer:
            self._wait_for_turn()

    # -- reading ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Handle received bytes, which may be only a part of a message: the client is alive."""
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
        """Read the request; bytes that are no HTTP are answered, too.

        Other protocols may never send a line end: one is added, so that the error comes at once.
        """
        end = data.find(b"\r\n\r\n")  # what stands behind the request is none of it
        if not self.bounds.received(self, len(data) if end < 0 else end):
            return
        if protocol_of(data) and not self.reader.buffer:  # else the bytes are within a line
            data += b"\r\n\r\n"
        self.protocol.receive_data(data)
        if isinstance(self.protocol.handshake_exc, InvalidMessage):
            peer = self.transport.get_extra_info("peername")
            self.transport.write(self.newcomers.no_http(data, peer))
        super().data_received(b"")

    def _parse(self, data: bytes, share: int, *, counts: bool) -> None:
        """Parse ``share`` frames at most; the rest waits for its turn."""
        reader, frames, protocol = self.reader, self.frames, self.protocol
        if protocol.state is CONNECTING and not protocol.eof_sent:
            share = 0  # bytes behind a request wait until that is answered
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

    def answered(self) -> None:
        """The client has answered a ping that asked for a receipt: that is no noise."""
        self.frames.counted += 1

    def process_event(self, event: Event) -> None:
        """Queue a frame of a message by one call; the library's own way has three."""
        if isinstance(event, Frame) and event.opcode in DATA:
            self.recv_messages.put(event)
        else:
            super().process_event(event)

    def _wait_for_turn(self) -> None:
        self.unparsed = True
        if not self._full():
            self.turns.wait(self._go_on)

    def _full(self) -> bool:
        """Whether so many parsed frames are unread that the rest is not parsed yet.

        A frame may need fifty times the memory of its bytes.
        """
        frames = self.frames
        waiting = len(frames.queue)
        return waiting > 0 and not self.intake.has_room(frames.size + waiting * FRAME)

    def _go_on(self, share: int) -> None:
        """Go on parsing: its turn has come."""
        if self.protocol.state is CLOSED:
            self.unparsed = False  # the socket is gone
        elif self._full():
            return  # when a frame is read, it waits for a turn again
        else:
            self.unparsed = False
            self._parse(b"", share, counts=True)
            self.intake.changed(self)
        if self.ended and not self.unparsed:
            self.disconnects.add(self._end_of_stream)

    def _count_noise(self, frames: int) -> None:
        """Count frames that no reader will count, and close a client that sends too many.

        Noise is control frames, small parts of a message, and every frame of a client without a
        handler. As many are allowed as messages, but at least ``NOISE`` per second.
        """
        rate, now = max(self.intake.rate, NOISE), self.loop.time()
        self.noise_due = max(self.noise_due, now) + frames / rate
        if self.noise_due - now <= 1:
            return
        if self.member is not None:
            reading.flood(self.member, rate, "frames")
        self._stop_reading()

    def _stop_reading(self) -> None:
        """Close with 1008 and read no more: TCP holds the client up until the socket is cut."""
        self.deaf = True
        self.protocol.fail(POLICY, "too many frames")
        self.send_data()
        self.reader.discard()
        if not self.transport.is_closing():
            self.transport.pause_reading()

    # -- the client of the intake ----------------------------------------------------------

    @property
    def whole(self) -> bool:
        """Whether a message, or a part of one, waits that no handler has begun to read."""
        return bool(self.frames.queue) or self.unparsed

    @property
    def wanted(self) -> bool:
        """Whether a handler waits for its next message, or for the rest of it."""
        return self.frames.get_waiter is not None

    def count(self) -> int:
        """Its bytes that are held: in frames, unparsed, and of an unfinished message."""
        frames = self.frames
        waiting = len(frames.queue)
        partial = 0 if frames.partial is None else len(frames.partial.data)
        return frames.size + waiting * FRAME + partial + len(self.reader.buffer)

    def _frame_read(self) -> None:
        """A handler has read a frame, or begins to wait for one."""
        if self.unparsed:
            self._wait_for_turn()
        if self.held or self.frames.paused:
            self.intake.changed(self)

    def ignore(self) -> None:
        """Drop all messages of the client, those that came and further ones."""
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

    def send_context(self, **options: Any) -> Any:
        """The library is about to write: what is pending goes first."""
        if self.member is not None:
            flush(self.member)
        return super().send_context(**options)

    def send_data(self) -> None:
        """Write the library's own frames; many answers to pings are joined to one write.

        Every end of the protocol comes here: the answer to a Close, and an error that the parser
        or (for text that is no UTF-8) the reader of a message finds.
        """
        protocol, writes = self.protocol, self.protocol.writes
        if not writes:
            return
        if self.member is not None and protocol.close_sent is not None:
            write_ahead(protocol, partial(flush, self.member))
        if len(writes) > 1:
            end = [SEND_EOF] if writes[-1] == SEND_EOF else []
            protocol.writes = [b"".join(writes), *end]
        super().send_data()
        if protocol.state is not OPEN and protocol.state is not CONNECTING:
            self._protocol_ended()
        if self.ended and protocol.eof_sent:  # the answer to a client that has ended the stream
            self.disconnects.add(self._end_of_stream)

    # -- ending ----------------------------------------------------------------------------

    def _protocol_ended(self) -> None:
        """The client has sent a Close, or broken the protocol: it is no member from now on."""
        member, close = self.member, self.protocol.close_rcvd
        if member is not None and not member.closed:
            begin_close(member, *(ABNORMAL, "") if close is None else (close.code, close.reason))
        elif member is not None and close is not None:
            note_answer(member)

    def eof_received(self) -> bool:  # type: ignore[override]  # theirs never keeps it open
        """The client has ended the stream; True keeps the transport open until that is handled.

        A request for no WebSocket is complete, and is answered: many tools send it that way.
        """
        request = self.request
        if request is not None and self._unanswered() and "Upgrade" in request.headers:
            self.protocol.state = CLOSED  # at once, so that it takes over no id
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
            return  # this is called again when it is answered
        if self.unparsed:  # its bytes are parsed to the end, but it is no member any more
            if self.member is not None:
                begin_close(self.member, NORMAL, "")
            return
        if self.member is not None:
            flush(self.member)
        super().eof_received()
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone: end its member, also when no handler reads from it."""
        self.protocol.state = CLOSED  # at once, so that nothing is written any more
        self.disconnects.add(partial(self._lost, exc))

    def _lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.ignored or not self.handled:
            self.intake.forget(self)
        else:
            self.intake.ended(self)
        self.keepalive_slice.discard(self)
        self.bounds.gone(self)
        self._end_member()
        self.on_gone(self)

    def _end_member(self) -> None:
        member = self.member
        if member is not None:
            note_end(member, self.close_code or ABNORMAL, self.close_reason or "")
