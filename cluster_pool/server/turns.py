"""What clients have sent is parsed in turns, so that no crowd of them holds the event loop.

A read of 256 KiB may be 44,000 frames of six bytes, which take the WebSocket library a third of a
second; and every client may have sent as much. In one turn of the loop so many frames are parsed in
all, and not many more of one client while others wait; the rest is parsed in the next turns, one
client after another. Owns who waits. What is parsed, and what a client may say at all, is for
:mod:`.keepalive` and :mod:`.intake`.
"""

import asyncio
from collections.abc import Callable, Generator
from typing import Final

from websockets.extensions import Extension
from websockets.frames import Frame
from websockets.protocol import Protocol
from websockets.streams import StreamReader

FRAMES: Final = 256
"""Frames of all clients in one turn of the loop. Each takes 7 µs, and 0.1 ms until it is published
if it is a message."""
SHARE: Final = 64
"""Of them, those of one client."""
BYTES: Final = 16 * 1024
"""So many bytes take as long as one frame more."""
TINY: Final = 256
"""Bytes of a read that is not worth being counted: not even 43 frames."""


class FrameReader(StreamReader):
    """The bytes of one client; the parser stops ahead of a frame for which nothing is left.

    Attributes:
        left: frames that may yet be begun, until somebody grants more; may be below 0.
        begun: frames so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left = 0
        self.begun = 0

    def at_eof(self) -> Generator[None, None, bool]:
        """As the library's, which its parser asks ahead of every frame."""
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
    """Give a new protocol a reader of ours, in the way in which it made its own."""
    reader = protocol.reader = FrameReader()
    protocol.parser = protocol.parse()
    next(protocol.parser)
    return reader


class Inflating(Extension):
    """An extension of a WebSocket, with what it makes of a frame counted.

    A compressed kilobyte may be a megabyte, which takes as long as hundreds of frames.
    """

    def __init__(self, extension: Extension, reader: FrameReader) -> None:
        self.name = extension.name
        self._extension = extension
        self._reader = reader

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """See the extension."""
        frame = self._extension.decode(frame, max_size=max_size)
        self._reader.left -= len(frame.data) // BYTES
        return frame

    def encode(self, frame: Frame) -> Frame:
        """See the extension."""
        return self._extension.encode(frame)


class Turns:
    """Who waits for its turn, and how much may be parsed in this one."""

    def __init__(self) -> None:
        self._waiting: dict[Callable[[int], None], None] = {}
        self._left = FRAMES
        self._scheduled = False

    def share(self, size: int) -> int:
        """Frames of one client that may be parsed now, given the bytes to look at; or 0."""
        self._schedule()
        self._left -= size // BYTES
        return max(0, min(SHARE, self._left))

    def spent(self, frames: int) -> None:
        """So many were parsed."""
        self._left -= frames

    def wait(self, go_on: Callable[[int], None]) -> None:
        """Call ``go_on`` with a share, once, when its turn has come."""
        self._waiting[go_on] = None
        self._schedule()

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        """A new turn of the loop: those who wait come first."""
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
