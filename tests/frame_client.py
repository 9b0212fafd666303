"""A client that speaks single frames (RFC 6455), and does nothing by itself."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Self
from urllib.parse import urlsplit

REQUEST = (
    "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
RESET = b"\1\0\0\0\0\0\0\0"
"""SO_LINGER that makes close() a reset."""


class FrameClient:
    """Use :meth:`connect`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, url: str) -> AsyncIterator[Self]:
        """Open a WebSocket; its answer is read, and nothing more."""
        parts = urlsplit(url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.write(REQUEST.format(path=f"{parts.path}?{parts.query}").encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in answer, answer
        try:
            yield cls(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def next(self) -> tuple[int, bytes]:
        """The next frame: opcode and payload."""
        first, size = await self._reader.readexactly(2)
        if size == 126:
            size = int.from_bytes(await self._reader.readexactly(2))
        elif size == 127:
            size = int.from_bytes(await self._reader.readexactly(8))
        return first & 15, await self._reader.readexactly(size)

    async def until(self, opcode: int) -> bytes:
        """The payload of the next frame of a kind; those before it are read and dropped."""
        while True:
            kind, payload = await self.next()
            if kind == opcode:
                return payload

    def send(self, opcode: int, payload: bytes = b"") -> None:
        """Send one frame, masked with zeros."""
        self._writer.write(bytes((128 | opcode, 128 | len(payload))) + bytes(4) + payload)

    def end(self) -> None:
        """End the stream, as a client does that has gone."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Cut TCP with a reset."""
        one: socket.socket = self._writer.get_extra_info("socket")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._writer.transport.abort()
