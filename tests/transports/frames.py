"""Frames as RFC 6455 defines them, parsed by code independent of the library's."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
DEFLATE_END = b"\x00\x00\xff\xff"


@dataclass(frozen=True)
class Frame:
    """One frame of a server (section 5.2); ``length_bytes`` tells which encoding it used."""

    opcode: int
    payload: bytes
    final: bool = True
    compressed: bool = False
    length_bytes: int = 0


def read_frames(data: bytes) -> Iterator[Frame]:
    """The frames that ``data`` consists of; AssertionError where it breaks the RFC."""
    at = 0
    while at < len(data):
        first, second = data[at], data[at + 1]
        assert not first & 0x30, "reserved bits that nobody negotiated"
        assert not second & 0x80, "a server's frame is not masked"
        size, length_bytes = second & 0x7F, {126: 2, 127: 8}.get(second & 0x7F, 0)
        at += 2
        if length_bytes:
            size = int.from_bytes(data[at : at + length_bytes], "big")
            assert size > (125 if length_bytes == 2 else 65535), "not the shortest encoding"
            assert size < 1 << 63, "the most significant bit must be 0"
            at += length_bytes
        assert at + size <= len(data), "the last frame is cut off"
        opcode, final = first & 0x0F, bool(first & 0x80)
        assert opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)
        assert opcode < CLOSE or (final and size <= 125), "a control frame is short and whole"
        yield Frame(opcode, data[at : at + size], final, bool(first & 0x40), length_bytes)
        at += size


def read_messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Opcode and payload of each message and control frame, in the order they end (section 5.4).

    Compressed messages are inflated with one context for all (RFC 7692 section 7.2.2).
    """
    inflate = zlib.decompressobj(wbits=-15)
    opening: Frame | None = None
    parts = b""
    for frame in read_frames(data):
        if frame.opcode >= CLOSE:
            yield frame.opcode, frame.payload
            continue
        assert (opening is None) == (frame.opcode != CONTINUATION), "messages are mixed up"
        if opening is None:
            opening, parts = frame, b""
        parts += frame.payload
        if frame.final:
            if opening.compressed:
                parts = inflate.decompress(parts + DEFLATE_END)
            yield opening.opcode, parts.decode().encode() if opening.opcode == TEXT else parts
            opening = None
    assert opening is None, "the last message has no end"
