"""Bounds how much of what clients have sent is parsed in one turn of the event loop.

A read of 256 KiB may be 44,000 frames of six bytes, which take the WebSocket library a third of a
second, and every client may have sent as much. In one turn of the loop ``FRAMES`` frames are parsed
in all, and ``SHARE`` of one client while others wait; the rest is parsed in the next turns, one
client after another. Owns the list of waiting clients. :mod:`.websocket` parses, and :mod:`.intake`
limits how much a client may send at all.
"""

import asyncio
from collections.abc import Callable, Generator
from typing import Final

from websockets.extensions import Extension
from websockets.frames import Frame
from websockets.protocol import Protocol
from websockets.streams import StreamReader

from cluster_pool.transports.deflate import Wrapping

FRAMES: Final = 256
"""Frames of all clients that are parsed in one turn of the loop. Each takes 7 µs, and a message
0.1 ms until it is published."""
SHARE: Final = 64
"""Frames of one client that are parsed in one turn of the loop."""
BYTES: Final = 16 * 1024
"""Bytes that take as long to parse as one more frame."""
TINY: Final = 256
"""The size of a read that is not counted, since it has less than 43 frames."""


class FrameReader(StreamReader):
    """The bytes of one client; stops the parser before a frame that is not granted.

    Attributes:
        left: frames that the parser may begin before more are granted; may be below 0.
        begun: frames that the parser has begun so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left = 0
        self.begun = 0

    def at_eof(self) -> Generator[None, None, bool]:
        """Tell the parser whether the next frame may begin; it calls this before each."""
        while True:
            if self.buffer:
                if self.left > 0:
                    self.left -= 1
                    self.begun += 1
                    return False
            elif self.eof:
                return True
            yield


def read_in_turns(protocol: Protocol) -> FrameReader:
    """Give a new protocol a FrameReader in place of its own reader."""
    reader = protocol.reader = FrameReader()
    protocol.parser = protocol.parse()
    next(protocol.parser)
    return reader


class Inflating(Wrapping):
    """An extension of a WebSocket that counts the size of frames after decompression.

    A compressed kilobyte may become a megabyte, which takes as long as hundreds of frames.
    """

    def __init__(self, inner: Extension, reader: FrameReader) -> None:
        super().__init__(inner)
        self._reader = reader

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """See the extension."""
        frame = self.inner.decode(frame, max_size=max_size)
        self._reader.left -= len(frame.data) // BYTES
        return frame


class Turns:
    """Grants frames to parse in this turn of the loop, and queues clients for the next turns."""

    def __init__(self) -> None:
        self._waiting: dict[Callable[[int], None], None] = {}
        self._left = FRAMES
        self._scheduled = False

    def share(self, size: int) -> int:
        """Return how many frames of one client may be parsed now, given the bytes that came."""
        self._schedule()
        self._left -= size // BYTES
        return max(0, min(SHARE, self._left))

    def spent(self, frames: int) -> None:
        """Count frames that were parsed in this turn."""
        self._left -= frames

    def wait(self, go_on: Callable[[int], None]) -> None:
        """Call ``go_on`` once, with its share, in a later turn of the loop."""
        self._waiting[go_on] = None
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """Begin a new turn of the loop with the waiting clients."""
        self._scheduled = False
        self._left = FRAMES
        try:
            for go_on in list(self._waiting):
                if self._left <= 0:
                    break
                del self._waiting[go_on]
                go_on(min(SHARE, self._left))
        finally:
            if self._waiting:
                self._schedule()
