"""A WebSocket whose client and network do what a test says: real frames, no socket.

Both ends are protocols of ``websockets``. Bytes lie on the wire until the client takes them.
"""

import asyncio
import contextvars
from collections.abc import Iterator
from typing import Any

from websockets.asyncio.connection import Connection as WebSocket
from websockets.frames import CLOSE, PING, TEXT
from websockets.protocol import OPEN, Protocol, Side

KERNEL = 2_000
"""Bytes that the kernel of a node takes for a client that reads nothing."""


class Wire(asyncio.Transport):
    """A connection of a client with a node.

    Args:
        context: that of the process of the node.

    Attributes:
        websocket: the end of the node.
        got: the texts that the stack of the client has, in order.
        pings: the Pings that it has not answered, each with how many texts it had then.
        proved: how many texts it had at the last Ping that it has answered, or at the Close.
        answers: whether it answers a Ping, and a Close.
        closed: the code of the Close that has come.
        broken: whether the network has ended it; a node may not know that.
    """

    def __init__(self, context: contextvars.Context) -> None:
        super().__init__()
        self._context = context
        self._way: bytearray = bytearray()
        self._client = Protocol(Side.CLIENT, state=OPEN, max_size=None)
        self._ended = False
        self.got: list[str] = []
        self.pings: list[tuple[int, bytes]] = []
        self.proved = 0
        self.closed: int | None = None
        self.answers = {PING: True, CLOSE: True}
        self.broken = self.reset = False
        self.websocket = context.run(
            WebSocket, Protocol(Side.SERVER, state=OPEN, max_size=None), close_timeout=None
        )
        self.websocket.connection_made(self)

    # -- the end of the node -----------------------------------------------------------------

    def write(self, data: Any) -> None:
        """See :class:`asyncio.Transport`."""
        if not self._ended and not self.reset:
            self._way += data

    def writelines(self, list_of_data: Any) -> None:
        """See :class:`asyncio.Transport`."""
        for data in list_of_data:
            self.write(data)

    def get_write_buffer_size(self) -> int:
        """See :class:`asyncio.Transport`: what the kernel has not taken."""
        return max(0, len(self._way) - KERNEL)

    def close(self) -> None:
        """See :class:`asyncio.Transport`: what is on its way still arrives."""
        self._end()

    def abort(self) -> None:
        """See :class:`asyncio.Transport`: what is on its way is lost."""
        self._way.clear()
        self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._tell(self.websocket.connection_lost, None)

    def is_closing(self) -> bool:
        """See :class:`asyncio.Transport`."""
        return self._ended

    def is_reading(self) -> bool:
        """See :class:`asyncio.Transport`."""
        return not self._ended

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See :class:`asyncio.Transport`: there is no socket."""
        return default

    def can_write_eof(self) -> bool:
        """See :class:`asyncio.Transport`."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See :class:`asyncio.Transport`."""

    def pause_reading(self) -> None:
        """See :class:`asyncio.Transport`: the client sends little."""

    def resume_reading(self) -> None:
        """See :class:`asyncio.Transport`."""

    def _tell(self, callback: Any, *arguments: Any) -> None:
        asyncio.get_running_loop().call_soon(callback, *arguments, context=self._context)

    # -- the end of the client ---------------------------------------------------------------

    @property
    def open(self) -> bool:
        """Whether its client may still get something."""
        return not self.broken and self.closed is None and not (self._ended and not self._way)

    @property
    def waiting(self) -> int:
        """Bytes on their way."""
        return 0 if self.broken else len(self._way)

    def take(self, share: float = 1.0) -> None:
        """The client reads a share of what is on its way, and answers as it does."""
        if self.broken or self.closed is not None:
            return
        size = round(len(self._way) * share)
        data, self._way = bytes(self._way[:size]), self._way[size:]
        self._client.receive_data(data)
        frames, answers = self._client.events_received(), iter(self._client.data_to_send())
        for frame in frames:
            self._read(frame, answers)

    def _read(self, frame: Any, answers: Iterator[bytes]) -> None:
        if frame.opcode is TEXT:
            self.got.append(frame.data.decode())
            return
        answer = next(answers)  # the protocol answers both, in order
        if frame.opcode is PING and not self.answers[PING]:
            self.pings.append((len(self.got), bytes(frame.data)))
        elif self.answers[frame.opcode]:
            self.pings.clear()  # a later Pong answers them, too
            self.proved = len(self.got)
            self._up(answer)
        if frame.opcode is CLOSE:
            self.closed = int.from_bytes(frame.data[:2])

    def pong(self, payload: bytes) -> None:
        """The client sends a Pong with any payload."""
        if not self.broken and self.closed is None:
            self._client.send_pong(payload)
            for data in self._client.data_to_send():
                self._up(data)

    def answer_late(self, which: int) -> None:
        """The client answers one of the Pings that it has left unanswered."""
        count, payload = self.pings.pop(which % len(self.pings))
        self.proved = max(self.proved, count)
        self.pong(payload)

    def leave(self, code: int = 1000) -> None:
        """The client closes by itself, and reads no more."""
        if self.open:
            self._client.send_close(code)
            for data in self._client.data_to_send():
                self._up(data)
            self.closed = code

    def cut(self, *, told: bool) -> None:
        """The connection breaks; the node is told (a reset), or not."""
        self.broken = True
        if told:
            self.reset_now()

    def reset_now(self) -> None:
        """The node finds out that the connection is broken."""
        self.broken = self.reset = True
        self._way.clear()
        self._end()

    def _up(self, data: bytes) -> None:
        if not self._ended and not self.broken:
            self._tell(self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if not self._ended and not self.broken:
            self.websocket.data_received(data)
