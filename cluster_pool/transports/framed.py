"""Writes the messages of one connection as frames of ``cluster-pool.v1``.

A JSON frame is larger than its message: base64 by a third, an escaped control character by six.
A client is judged by the bytes of its messages, as any other one, so what large frames have beyond
that is not counted.
"""

from collections import deque
from typing import Final

from cluster_pool.core.client_frames import framed
from cluster_pool.core.message import Outgoing
from cluster_pool.transports.base import Writer

SMALL: Final = 4096
"""Bytes of a frame that are counted as they are: the memory of many small ones must be bounded."""


class FramedWriter:
    """See :class:`Writer`: hands frames to another one.

    Args:
        home: the home of the client.
    """

    __slots__ = ("_beyond", "_home", "_writer")

    def __init__(self, writer: Writer, home: str) -> None:
        self._writer = writer
        self._home = home
        self._beyond: deque[tuple[int, int]] | None = None
        """The large frames that wait: at how many bytes written each ends, and its bytes beyond its
        message."""

    def descriptor(self) -> int:
        """See :class:`Writer`: the bytes are others than the message has."""
        return -1

    def write(self, outgoing: Outgoing, written: int = 0) -> int:
        """See :class:`Writer`."""
        writer = self._writer
        frames = framed(outgoing, self._home)
        if frames.size <= SMALL and not self._beyond:
            return writer.write(frames, written)
        before = writer.bytes_written() + writer.buffered()
        left = writer.write(frames, written)
        if left > 0:
            end = writer.bytes_written() + left
            beyond = min(_beyond(outgoing, frames), end - before - outgoing.size)
            if beyond > 0:
                if self._beyond is None:
                    self._beyond = deque()
                self._beyond.append((end, beyond))
        return left if left <= 0 else self.buffered()

    def buffered(self) -> int:
        """See :class:`Writer`; without what large frames have beyond their messages."""
        left = self._writer.buffered()
        beyond = self._beyond
        if not beyond:
            return left
        written = self._writer.bytes_written()
        while beyond and beyond[0][0] <= written:
            beyond.popleft()
        return max(left - sum([bytes for _, bytes in beyond]), min(left, 1))

    def bytes_written(self) -> int:
        """See :class:`Writer`."""
        return self._writer.bytes_written()


def _beyond(outgoing: Outgoing, frames: Outgoing) -> int:
    """The bytes that large frames have beyond their messages."""
    pairs = zip(outgoing.parts, frames.parts, strict=True)
    return sum([frame.size - part.size for part, frame in pairs if frame.size > SMALL])
