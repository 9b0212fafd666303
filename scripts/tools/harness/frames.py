"""The parts of WebSocket that a client needs (RFC 6455): a handshake, and frames.

Written apart from the library that is tested and from any other, for clients that cost little or do
what no library's client does.
"""

from collections.abc import Iterator
from typing import NamedTuple

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
FIN = 0x80
END = b"\r\n\r\n"


def request(path: str, *lines: str) -> bytes:
    """A handshake; with more lines in its head."""
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    head = ("Host: x", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13")
    return "\r\n".join((f"GET {path} HTTP/1.1", *head, key, *lines, "", "")).encode()


def masked(opcode: int, payload: bytes = b"") -> bytes:
    """A whole message as a client sends it, masked with zeros."""
    return client_frame(FIN | opcode, payload)


def client_frame(first: int, payload: bytes) -> bytes:
    """The same as a frame with any first byte."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = bytes((first, 0xFE)) + size.to_bytes(2, "big")
    else:
        head = bytes((first, 0xFF)) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


class Frame(NamedTuple):
    """A frame of a server, and where the next one begins."""

    opcode: int
    payload: bytes
    end: int


def read(data: bytes) -> Iterator[Frame]:
    """The whole frames at the begin of what a server has sent."""
    at = 0
    while len(data) - at >= 2:
        size, start = data[at + 1], at + 2
        if size >= 126:
            start += 2 if size == 126 else 8
            if len(data) < start:
                return
            size = int.from_bytes(data[at + 2 : start], "big")
        end = start + size
        if len(data) < end:
            return
        yield Frame(data[at] & 0x0F, data[start:end], end)
        at = end
