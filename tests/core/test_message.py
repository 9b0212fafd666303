"""Messages as frames."""

import gc
import weakref

from cluster_pool.core.message import Outgoing, encode, frame_header
from tests.core.odd import Loud, Odd


def test_frame_headers() -> None:
    """RFC 6455 section 5.2: three length encodings, no mask, one frame."""
    assert frame_header(True, 125) == b"\x81\x7d"
    assert frame_header(False, 126) == b"\x82\x7e\x00\x7e"
    assert frame_header(True, 65535) == b"\x81\x7e\xff\xff"
    assert frame_header(False, 65536) == b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"


def test_joined_messages_are_one_write() -> None:
    """The frames stand back to back, and their parts stay accessible."""
    parts = (Outgoing(True, b"a"), Outgoing(False, b"b"))
    joined = Outgoing.join(parts)
    assert joined.frame == b"\x81\x01a\x82\x01b"
    assert tuple(joined.parts) == parts
    assert joined.size == 2
    assert joined.count == 2
    assert Outgoing.join(parts[:1]) is parts[0]


def test_a_message_is_freed_when_it_is_not_needed() -> None:
    """No reference cycle: a megabyte must not wait for the garbage collector."""
    gc.disable()
    try:
        for make in (
            lambda: Outgoing(True, b"x"),
            lambda: Outgoing.join([Outgoing(True, b"x")] * 2),
        ):
            gone = weakref.ref(make())
            assert gone() is None
    finally:
        gc.enable()


def test_an_encoded_message_is_exact() -> None:
    """Also if its class gives other bytes when asked."""
    assert encode(Odd.NAME, 100) == (True, b"name")
    text, payload = encode(Loud(b"quiet"), 100)
    assert (text, payload, type(payload)) == (False, b"quiet", bytes)
