"""The queue of the frames that a handler has not read yet, counted in bytes."""

from collections.abc import Callable, Sequence
from typing import Final

from websockets.asyncio.messages import SimpleQueue
from websockets.frames import Frame

FRAME: Final = 300
"""Bytes of memory that a queued frame takes besides its payload."""
LARGE: Final = 4096
"""Bytes of a payload from which on it is freed early."""
PART: Final = 1024
"""Bytes of a part of a message that takes as long to receive as to parse. Some libraries send every
long message in parts of four times this size."""


class Frames(SimpleQueue[Frame]):
    """A queue like the library's own that counts bytes, and joins the parts of a message.

    Args:
        on_read: called when the last frame was read, and when a handler begins to wait for one.

    Attributes:
        size: bytes in the payloads of the queued frames.
        counted: frames so far that were a message, the last part of one, or a part that is not
            small.
        partial: the received parts of an incomplete message, joined into one frame. Queued one by
            one, parts of six bytes would need fifty times their size, and each would wake a reader
            that cannot use it.
        paused: whether reading from the client is paused; ``on_read`` is then called for every
            frame.
    """

    def __init__(self, on_read: Callable[[], None]) -> None:
        super().__init__()
        self.size = 0
        self.counted = 0
        self.partial: Frame | None = None
        self.paused = False
        self._on_read = on_read

    def put(self, item: Frame) -> None:
        """Add a frame."""
        size = len(item.data)
        if item.fin:
            self.counted += 1
            if self.partial is not None:
                item = self._joined(item)
                size = len(item.data)
                self.partial = None
        else:
            self.counted += size >= PART
            self.partial = self._joined(item)
            return
        self.size += size
        self.queue.append(item)
        if self.get_waiter is not None and not self.get_waiter.done():
            self.get_waiter.set_result(None)

    def _joined(self, part: Frame) -> Frame:
        """The message so far, with this part at its end."""
        before = self.partial
        if before is None:
            return Frame(part.opcode, bytearray(part.data), fin=False)
        assert isinstance(before.data, bytearray)
        before.data += part.data
        before.fin = part.fin
        return before

    async def get(self, block: bool = True) -> Frame:
        """Return the next frame; raise EOFError when there is none and ``block`` is false."""
        if not self.queue:
            if not block:
                raise EOFError("stream of frames ended")
            assert self.get_waiter is None, "cannot call get() concurrently"
            self.get_waiter = self.loop.create_future()
            try:
                self._on_read()
                await self.get_waiter
            finally:
                self.get_waiter.cancel()
                self.get_waiter = None
        frame = self.queue.popleft()
        size = len(frame.data)
        self.size -= size
        if size > LARGE and frame.fin:
            # The library makes a message of it in this turn of the loop, but its parser keeps the
            # frame until the next one is complete, perhaps for hours.
            self.loop.call_soon(_empty, frame)
        if self.paused or not self.queue:
            self._on_read()
        return frame

    def put_back(self, items: Sequence[Frame]) -> None:
        """Put frames back at the front of the queue."""
        super().put_back(items)
        self.size += sum(len(item.data) for item in items)


def _empty(frame: Frame) -> None:
    frame.data = b""
