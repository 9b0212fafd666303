"""The reading side of our protocol of uvicorn: a feed in the place of its queue, and turns.

Uvicorn parses all that a read gives, which may be a hundred thousand tiny frames, and uvloop may
read 32 times before anything else runs. Here a client has its turn like others: after a number of
frames the rest of its bytes, and its socket, wait for the next turn of the loop, and without a feed
until its application has read what came before: a queue that is not empty gives one event after
another without a turn of the loop.
"""

import asyncio
import os
from collections.abc import Sized
from typing import Any, Final

from websockets.frames import CloseCode

from cluster_pool.transports.fed import Fed
from cluster_pool.transports.kept import DISCONNECT
from cluster_pool.transports.uvicorn_fit import WebSocketsSansIOProtocol

SMALL: Final = 1024
"""Bytes that are parsed at once; with compression never more, as they may grow a thousandfold."""
PIECE: Final = 4096
LARGEST_PIECE: Final = 32768
"""Bytes that are parsed without a look at the number of frames; more while they are large."""
TINY: Final = 64
"""Bytes of a frame, on average, below which pieces stay small."""
INFLATED: Final = 16 * 1024
"""Bytes after decompression that count as one more frame: they take about as long."""
MAX_FRAGMENTS: Final = int(os.environ.get("WEBSOCKETS_MAX_FRAGMENTS", "4096"))
"""Parts of a message, as `websockets` has it; not all its versions do."""
FRAMES: Final = 256
"""Frames of one client in a turn of the loop, above which it waits for the next one."""


class ReadingProtocol(WebSocketsSansIOProtocol):
    """See the module.

    Attributes:
        feed: takes the events, in the place of the queue, if a connection of ours reads it.
        full: whether the feed has no room.
        unparsed: bytes that wait for the next turn, or for room.
        waits: whether that turn is scheduled.
    """

    __slots__ = ("feed", "full", "unparsed", "waits")

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.feed: Fed | None = None
        self.unparsed: bytes | memoryview = b""
        self.full = self.waits = False

    @property
    def is_read(self) -> bool:
        """Whether a task waits for an event already, by ASGI's ``receive``."""
        return bool(self.queue._getters)  # type: ignore[attr-defined]

    def attach(self, feed: Fed) -> None:
        """Give all further events to ``feed``, and those that wait."""
        queue, self.queue, self.feed = self.queue, feed, feed  # type: ignore[assignment]  # as one
        if self.read_paused:
            self.transport.resume_reading()
        self.read_paused = True  # so that uvicorn does not pause; the feed does
        while not queue.empty():
            feed.put_nowait(dict(queue.get_nowait()))
        self.read_on()

    def detach(self) -> None:
        """Take the events itself again."""
        feed, self.feed = self.feed, None
        self.queue = asyncio.Queue()
        self.read_paused = False
        if feed is None:
            return
        self.close_sent = self.close_sent or feed.closed
        if feed.over is not None:
            code, reason = feed.over
            self.queue.put_nowait({"type": DISCONNECT, "code": code, "reason": reason})

    # -- flow ------------------------------------------------------------------------------

    def pause_reading(self) -> None:
        """Parse and read nothing until there is room in the feed."""
        self.full = True
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        """There is room."""
        self.full = False
        if self.unparsed:
            self._wait()
        else:
            self.transport.resume_reading()

    def read_on(self) -> None:
        """Bytes may have waited for the answer to the request, and it may be given now."""
        if self.unparsed and not self.full and self.handshake_complete:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Bytes came; those behind a request wait until it is answered."""
        if self.unparsed or (self.handshake_initiated and not self.handshake_complete):
            self.unparsed = bytes(self.unparsed) + data
            self.transport.pause_reading()
        elif len(data) <= SMALL or not self.handshake_complete:
            super().data_received(data)
        else:
            self._parse(memoryview(data))

    def _parse(self, data: memoryview) -> None:
        """Parse until there are too many frames for one turn, or there is no room."""
        conn, frames, size = self.conn, 0, SMALL if self.conn.extensions else PIECE
        while data and frames < FRAMES and not self.full:
            conn.receive_data(data[:size])  # type: ignore[arg-type]  # it is copied
            data = data[size:]
            if conn.parser_exc is not None:
                self.handle_parser_exception()
                return
            parsed = len(conn.events)
            if conn.extensions:
                frames += sum(map(_frames_of, conn.events))
            else:
                frames += parsed
                size = PIECE if parsed * TINY > size else min(2 * size, LARGEST_PIECE)
            self.handle_events()
        self.unparsed = data
        if data or frames >= FRAMES:
            self.transport.pause_reading()
            if not self.full:
                self._wait()

    async def receive(self) -> Any:
        """ASGI's. When nothing waits any more, parse on, and read on when all is parsed."""
        if self.feed is not None:
            return await super().receive()
        event = await self.queue.get()
        if self.queue.empty():
            if self.unparsed:
                self._wait()
            elif self.read_paused:
                self.read_paused = False
                self.transport.resume_reading()
        return event

    def _wait(self) -> None:
        if not self.waits:
            self.waits = True
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        """Its turn has come again."""
        self.waits = False
        most = 1 if self.conn.extensions else FRAMES
        if self.full or (self.feed is None and self.queue.qsize() >= most):
            return
        data, self.unparsed = self.unparsed, b""
        if self.transport.is_closing():
            return
        self._parse(memoryview(data))
        paused_by_uvicorn = self.feed is None and self.read_paused
        if not (self.unparsed or self.waits or self.full or paused_by_uvicorn):
            self.transport.resume_reading()

    def handle_cont(self, event: Any) -> None:
        """A part of a message came; empty parts without end would take memory without end."""
        parts: Sized = getattr(self, "frames", ())  # older versions of uvicorn keep no parts
        if len(parts) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, "too many fragments")
            self.handle_parser_exception()


def _frames_of(event: Any) -> int:
    """For how many frames one counts that may have been compressed."""
    return 1 + len(event.data) // INFLATED
