"""The queue of a WebSocket's unread frames, which knows how many bytes are in it."""

from collections.abc import Callable, Sequence
from typing import Final

from websockets.asyncio.messages import SimpleQueue
from websockets.frames import Frame

FRAME: Final = 300
"""Bytes that a queued frame takes besides what is in it."""
LARGE: Final = 4096
"""Bytes of a frame that is worth being emptied."""
PART: Final = 1024
"""Bytes of a part of a message that costs as much to receive as to parse; some libraries send all
that is long in parts of four of them."""


class Frames(SimpleQueue[Frame]):
    """As the library's own, and counted.

    Args:
        on_taken: called when the last frame was taken, and when somebody begins to wait for one.

    Attributes:
        size: bytes in the queued frames.
        counted: frames so far that were a message, the last part of one, or not a small part.
        partial: what has come of a message that is not complete. Its parts are no frames any more:
            one of six bytes would take fifty times as many, and wake a reader that can do nothing.
        paused: whether no more is read for now: then ``on_taken`` is called for every frame.
    """

    def __init__(self, on_taken: Callable[[], None]) -> None:
        super().__init__()
        self.size = 0
        self.counted = 0
        self.partial: Frame | None = None
        self.paused = False
        self._on_taken = on_taken

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
        """The message so far, which this part belongs to."""
        before = self.partial
        if before is None:
            return Frame(part.opcode, bytearray(part.data), fin=False)
        assert isinstance(before.data, bytearray)
        before.data += part.data
        before.fin = part.fin
        return before

    async def get(self, block: bool = True) -> Frame:
        """The next frame; raises EOFError when there is none and ``block`` is false."""
        if not self.queue:
            if not block:
                raise EOFError("stream of frames ended")
            assert self.get_waiter is None, "cannot call get() concurrently"
            self.get_waiter = self.loop.create_future()
            try:
                self._on_taken()
                await self.get_waiter
            finally:
                self.get_waiter.cancel()
                self.get_waiter = None
        frame = self.queue.popleft()
        size = len(frame.data)
        self.size -= size
        if size > LARGE and frame.fin:
            # Whoever takes it makes a message of it in this very turn. The library's parser keeps
            # the frame until the next one is complete, which may be in an hour.
            self.loop.call_soon(_empty, frame)
        if self.paused or not self.queue:
            self._on_taken()
        return frame

    def put_back(self, items: Sequence[Frame]) -> None:
        """Put frames back at the front."""
        super().put_back(items)
        self.size += sum(len(item.data) for item in items)


def _empty(frame: Frame) -> None:
    frame.data = b""
