"""Frames of a client, and those of a server, whole or cut off."""

import pytest

from tools.harness.frames import CLOSE, PING, TEXT, Frame, client_frame, masked, read, request


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_a_servers_frame_is_read_whatever_its_length(size: int) -> None:
    """The three encodings of section 5.2; the next frame begins behind it."""
    client = masked(TEXT, b"x" * size)
    head = len(client) - size - 4
    server = bytes((client[0], client[1] & 0x7F)) + client[2:head] + b"x" * size
    frames = list(read(server + b"\x89\x02hi"))
    assert frames == [
        Frame(TEXT, b"x" * size, len(server)),
        Frame(PING, b"hi", len(server) + 4),
    ]


def test_a_truncated_frame_waits_for_the_rest() -> None:
    """It is cut in its length, or in its payload."""
    for data in (b"", b"\x81", b"\x81\x7e\x00", b"\x81\x05hell"):
        assert list(read(data)) == []


def test_a_clients_frame_is_masked_with_zeros() -> None:
    """Its payload stays readable; the first byte can be chosen."""
    assert masked(CLOSE, b"40") == b"\x88\x82\0\0\0\x0040"
    assert client_frame(0x01, b"") == b"\x01\x80\0\0\0\0"


def test_a_handshake_has_the_requested_lines() -> None:
    """It ends with an empty one."""
    lines = request("/ws/room?id=a", "Origin: null").split(b"\r\n")
    assert lines[0] == b"GET /ws/room?id=a HTTP/1.1"
    assert lines[-3:] == [b"Origin: null", b"", b""]
