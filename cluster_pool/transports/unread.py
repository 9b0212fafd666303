"""Notices that a client of ``websockets`` leaves, also while no task reads its messages.

The library reads ahead by itself, up to a number of frames; then it stops, and does not see a Close
either. It does not report a Close before the socket is gone. Both are changed here by hooks on the
object; a message that is read takes the library's own path.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from websockets.asyncio.connection import Connection as WebSocket
from websockets.frames import BINARY, TEXT, Frame, Opcode
from websockets.protocol import OPEN

from cluster_pool.core.closing import ABNORMAL
from cluster_pool.transports.base import OVERHEAD, Ahead, Reading, Watcher
from cluster_pool.transports.frames import write_ahead

DATA: Final = (TEXT, BINARY)


class Unread:
    """Watches one WebSocket, until :meth:`end`.

    While no task reads, messages are kept within the limits of :class:`Ahead`, and further ones are
    dropped as a whole. When a task reads and the library's queue is full, reading stops, and TCP
    holds the client up; a reader that reads nothing for ``Ahead.patience`` seconds then counts as
    none.

    Attributes:
        own: whether its connection reads it.
    """

    def __init__(self, websocket: WebSocket, watcher: Watcher, ahead: Ahead) -> None:
        self._websocket: Any = websocket
        self._watcher = watcher
        self._ahead = ahead
        self._messages: Any = websocket.recv_messages
        self._protocol: Any = websocket.protocol
        self.own = self._read = self._elsewhere = False
        self._keeping = self._dropped = self._told = self._ended = False
        self._timer: asyncio.TimerHandle | None = None
        self._held = self._pauses = 0
        self._seen = (0, 0)
        self._watch_reads()
        self._messages.pause = self._full
        if not self._protocol.eof_sent:
            self._protocol.send_eof = self._send_eof  # type: ignore[method-assign]  # a hook
        websocket.connection_lost_waiter.add_done_callback(self._lost)

    def end(self) -> None:
        """Remove the hooks and stop watching."""
        self._ended = True
        self._release()
        self._messages.pause = self._websocket.transport.pause_reading
        for name in ("get", "get_iter"):
            self._messages.__dict__.pop(name, None)
        self._protocol.__dict__.pop("send_eof", None)
        if self._timer is not None:
            self._timer.cancel()
        self._websocket.connection_lost_waiter.remove_done_callback(self._lost)

    def reading(self) -> Reading:
        """See :class:`Transport`."""
        if self._elsewhere:
            return Reading.WAITED if self._messages.get_in_progress else Reading.ELSEWHERE
        parsed = any(isinstance(one, Frame) and one.opcode in DATA for one in self._protocol.events)
        return Reading.UNREAD if len(self._messages.frames) or parsed else Reading.UNTOUCHED

    # -- the end ---------------------------------------------------------------------------

    def _send_eof(self) -> None:
        """The protocol ends its side: a Close came, the end, or a frame that violates it.

        The library writes later: what was sent to the client before that goes first.
        """
        del self._protocol.send_eof
        if self._protocol.state is OPEN:
            self._watcher.write_pending()
        else:
            write_ahead(self._protocol, self._watcher.write_pending)
        self._protocol.send_eof()
        self._tell()

    def _lost(self, done: "asyncio.Future[None]") -> None:
        self._tell()

    def _tell(self) -> None:
        if not self._told and not self._ended:
            self._told = True
            close = self._protocol.close_rcvd
            code, reason = (ABNORMAL, "") if close is None else (int(close.code), close.reason)
            self._watcher.client_left(code, reason)

    # -- readers ---------------------------------------------------------------------------

    def _watch_reads(self) -> None:
        """Hook the next read, and only that: later ones cost nothing more."""
        self._messages.get, self._messages.get_iter = self._get, self._get_iter

    def _note_reader(self) -> None:
        del self._messages.get, self._messages.get_iter
        self._read = True
        self._elsewhere = not self.own
        self._release()
        if self._messages.paused:
            self._full()

    async def _get(self, decode: bool | None = None) -> Any:
        self._note_reader()
        return await self._messages.get(decode)

    def _get_iter(self, decode: bool | None = None) -> AsyncIterator[Any]:
        self._note_reader()
        frames: AsyncIterator[Any] = self._messages.get_iter(decode)
        return frames

    # -- messages without a reader ---------------------------------------------------------

    def _full(self) -> None:
        """Called when the library's queue is full, in place of its pause."""
        if self._read:
            self._websocket.transport.pause_reading()
            self._pauses += 1
            if self._timer is None:
                self._wait()
        else:
            self._count_bytes()

    def _wait(self) -> None:
        """Look later whether anything was read, by the length of the queue and the pauses since."""
        self._seen = self._pauses, len(self._messages.frames)
        self._timer = self._websocket.loop.call_later(self._ahead.patience, self._waited)

    def _waited(self) -> None:
        self._timer = None
        if not self._messages.paused or self._websocket.transport.is_closing():
            return
        if (self._pauses, len(self._messages.frames)) != self._seen:
            self._wait()
            return
        self._read = False
        self._watch_reads()
        self._count_bytes()
        self._websocket.transport.resume_reading()

    def _count_bytes(self) -> None:
        """Bound the queue in bytes from now on, and not in frames."""
        if "put" not in self._messages.__dict__:  # else incoming messages are ignored
            frames = self._messages.frames.queue
            self._keeping = bool(frames) and not frames[-1].fin
            self._messages.put = self._put
            for frame in frames:
                self._hold(frame)

    def _put(self, frame: Frame) -> None:
        """Called for each frame in place of the library's put: keep whole messages that fit."""
        if frame.opcode is not Opcode.CONT:
            if self._read:
                del self._messages.put
                self._messages.put(frame)
                return
            size, ahead = len(frame.data) + OVERHEAD, self._ahead
            self._keeping = self._held + size <= ahead.one and ahead.held + size <= ahead.all
            if not self._keeping:
                self._watcher.dropped(first=not self._dropped)
                self._dropped = True
        if self._keeping:
            self._hold(frame)
            self._messages.frames.put(frame)

    def _hold(self, frame: Frame) -> None:
        size = len(frame.data) + OVERHEAD
        self._held += size
        self._ahead.held += size

    def _release(self) -> None:
        self._ahead.held -= self._held
        self._held = 0


def ignore_incoming(websocket: WebSocket) -> None:
    """Drop received and further messages; else the library stops reading at a full queue."""
    messages = websocket.recv_messages
    messages.put = _drop  # type: ignore[method-assign]  # a hook on this object only
    if messages.frames.get_waiter is None:
        messages.frames.queue.clear()
    ignore = getattr(websocket, "ignore", None)
    if ignore is not None:  # one of ours, with a flow control of its own
        ignore()
    elif not websocket.transport.is_closing():
        messages.maybe_resume()


def _drop(frame: Frame) -> None:
    """Drop a frame."""
