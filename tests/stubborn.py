"""A WebSocket client that breaks the rules: it answers no Close and goes on sending."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from tests.support import eventually
from tests.transports.frames import read_frames
from tools.harness.frames import CLOSE, TEXT, masked, request


class Stubborn:
    """Reads everything and reacts to nothing."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.heard = b""
        self.ended = False

    async def listen(self) -> None:
        """Keep all that comes; its own task runs this."""
        with contextlib.suppress(ConnectionError):
            while data := await self._reader.read(65536):
                self.heard += data
        self.ended = True

    def say(self, text: str) -> None:
        """Send a text message, even after a Close."""
        self.writer.write(masked(TEXT, text.encode()))

    @property
    def close_code(self) -> int | None:
        """The code of the Close that came; None without one."""
        for frame in read_frames(self.heard):
            if frame.opcode == CLOSE:
                return int.from_bytes(frame.payload[:2], "big")
        return None

    async def told(self, code: int) -> None:
        """Wait for a Close with this code."""
        await eventually(lambda: self.close_code)
        assert self.close_code == code


@contextlib.asynccontextmanager
async def stubborn(url: str, *, reads: bool = True) -> AsyncIterator[Stubborn]:
    """A connected client; without ``reads`` its socket fills up, and its kernel's buffers."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(request(f"{parts.path}?{parts.query}"))
    answer = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    client = Stubborn(reader, writer)
    if not reads:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
    listening = asyncio.create_task(client.listen())
    try:
        yield client
    finally:
        writer.transport.abort()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
