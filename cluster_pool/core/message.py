"""A message to clients: validated and framed once, however many connections it goes to.

An uncompressed frame from a server is the same bytes for every recipient (RFC 6455 section 5.2:
servers do not mask). So it is built once, here, and a transport that can send raw frames writes
these bytes. A compressed frame is, too, if each message is compressed by itself: then it is built
once for each size of the window.
"""

import json
import struct
import zlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from cluster_pool.exceptions import InvalidMessageError, MessageTooLargeError

Message = str | bytes
Source = tuple[str, str, int]
"""The namespace of a message, and the epoch and number of a broadcast in it; "" and 0 if there are
none."""
Author = tuple[str, str]
"""The id of the client that published a message, and its user, "" if it has none."""

_TEXT: Final = 0x81
_BINARY: Final = 0x82
_TWO_BYTES: Final = struct.Struct("!BBH").pack
_EIGHT_BYTES: Final = struct.Struct("!BBQ").pack
_COMPRESSED: Final = 0x40
"""The bit RSV1 of a compressed message's first frame (RFC 7692 section 6)."""
_TAIL: Final = b"\0\0\xff\xff"
"""The end of each compressed message, which is not sent (RFC 7692 section 7.2.1)."""
COMPRESSES: Final = 256
"""Bytes of a message from which on it is compressed; below, that saves less than it costs."""
_LEVEL: Final = 6
MEM_LEVEL: Final = 5
"""With it zlib makes its state in 20 µs; the default of 8 takes 100 µs, for the same results."""


class Outgoing:
    """One message, or several joined, ready to be written.

    Attributes:
        frame: the WebSocket frames, back to back.
        size: bytes of payload.
        count: how many messages.
        text: whether a single message is text; meaningless for several.
        payload: the payload of a single message, empty for several.
        source: where a single message comes from; None if only its recipient knows.
        framed: the same for clients of ``cluster-pool.v1``, once it was made: see
            :mod:`.client_frames`. It is not there before.
    """

    __slots__ = (
        *("__weakref__", "_compressed", "_joined", "_message", "count", "frame", "framed"),
        *("payload", "size", "source", "text"),
    )

    framed: "Outgoing"

    def __init__(self, text: bool, payload: bytes, source: Source | None = None) -> None:
        self.text = text
        self.payload = payload
        self.size = len(payload)
        self.frame = frame_header(text, len(payload)) + payload
        self.count = 1
        self._joined: Sequence[Outgoing] | None = None
        self._message: Message | None = None
        self._compressed: dict[int, bytes] | None = None
        self.source = source

    @classmethod
    def join(cls, parts: Sequence["Outgoing"]) -> "Outgoing":
        """Several messages that go to the same connections one after another, as one write."""
        if len(parts) == 1:
            return parts[0]
        joined = cls.__new__(cls)
        joined.text = False
        joined.payload = b""
        joined.size = sum([part.size for part in parts])
        joined.frame = b"".join([part.frame for part in parts])
        joined._joined = [single for part in parts for single in part.parts]
        joined._message = joined._compressed = None
        joined.source = None
        joined.count = len(joined._joined)
        return joined

    @property
    def author(self) -> Author | None:
        """The client that published it, if one did."""
        return None

    @property
    def parts(self) -> Sequence["Outgoing"]:
        """The single messages, in order."""
        return (self,) if self._joined is None else self._joined

    @property
    def message(self) -> Message:
        """The message as the user gave it; made once for all that ask."""
        if self._message is None:
            self._message = self.payload.decode() if self.text else self.payload
        return self._message

    def compressed(self, window: int) -> bytes:
        """The frames, each message compressed by itself with a window of so many bits.

        It is made once for all that ask. Small messages stay as they are, which permessage-deflate
        allows.
        """
        if self._joined is not None:
            return b"".join([part.compressed(window) for part in self._joined])
        if self.size < COMPRESSES:
            return self.frame
        made = self._compressed
        if made is None:
            made = self._compressed = {}
        frame = made.get(window)
        if frame is None:
            frame = made[window] = _compress(self, window)
        return frame


class PublishedMessage(Outgoing):
    """A message that a client has published."""

    __slots__ = ("_author",)

    def __init__(self, text: bool, payload: bytes, source: Source, author: Author) -> None:
        super().__init__(text, payload, source)
        self._author = author

    @property
    def author(self) -> Author:
        """See :class:`Outgoing`."""
        return self._author


def _compress(message: Outgoing, window: int) -> bytes:
    packer = zlib.compressobj(_LEVEL, zlib.DEFLATED, -window, MEM_LEVEL)
    packed = packer.compress(message.payload) + packer.flush(zlib.Z_SYNC_FLUSH)
    size = len(packed) - len(_TAIL)
    header = frame_header(message.text, size)
    return b"".join((bytes((header[0] | _COMPRESSED,)), header[1:], memoryview(packed)[:size]))


@lru_cache(maxsize=1024)
def frame_header(text: bool, size: int) -> bytes:
    """The header of an unmasked, unfragmented data frame (RFC 6455 section 5.2)."""
    first = _TEXT if text else _BINARY
    if size < 126:
        return bytes((first, size))
    if size < 65536:
        return _TWO_BYTES(first, 126, size)
    return _EIGHT_BYTES(first, 127, size)


def encode(message: object, limit: int) -> tuple[bool, bytes]:
    """Whether ``message`` is text, and its bytes.

    Raises:
        InvalidMessageError: not ``str`` or ``bytes``, or a lone surrogate in it.
        MessageTooLargeError: more than ``limit`` bytes.
    """
    if isinstance(message, str):
        try:
            text, payload = True, str.encode(message)
        except UnicodeEncodeError as error:
            raise InvalidMessageError(
                f"message has a lone surrogate at index {error.start}: it has no UTF-8 form"
            ) from None
    elif isinstance(message, bytes):
        text, payload = False, message if type(message) is bytes else bytes(memoryview(message))
    elif isinstance(message, bytearray | memoryview):
        text, payload = False, bytes(message)
    else:
        raise InvalidMessageError(f"message must be str or bytes, not {type(message).__name__}")
    if len(payload) > limit:
        raise MessageTooLargeError(len(payload), limit)
    return text, payload


def outgoing(message: object, limit: int) -> Outgoing:
    """``message`` validated and framed; raises as :func:`encode` does."""
    return Outgoing(*encode(message, limit))


def to_json(value: Any) -> str:
    """``value`` as compact JSON text; raises InvalidMessageError for what JSON cannot carry."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidMessageError(f"message is not JSON: {error}") from error
