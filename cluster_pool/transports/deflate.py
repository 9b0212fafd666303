"""permessage-deflate in which each message is compressed by itself (RFC 7692 section 7.1.1).

A broadcast is then compressed once for all clients that have the same window, and no connection
keeps a compressor or a decompressor. Owns what is agreed to; :mod:`cluster_pool.core.message`
compresses.
"""

from collections.abc import Sequence
from typing import Final

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)
from websockets.frames import Frame

from cluster_pool.core.message import MEM_LEVEL

WINDOW: Final = 12
"""Bits of the window of what is sent, at most: clients may ask for less."""
SHARED: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=WINDOW,
    compress_settings={"memLevel": MEM_LEVEL},
)
"""Accepts the offer of a client; one object for all of them."""


class Wrapping(Extension):
    """An extension around another one: what it encodes stays the same.

    Attributes:
        inner: the other one.
    """

    def __init__(self, inner: Extension) -> None:
        self.name = inner.name
        self.inner = inner

    def encode(self, frame: Frame) -> Frame:
        """See the extension."""
        return self.inner.encode(frame)


def shared_window(extensions: Sequence[Extension]) -> int:
    """Bits of the window if every message is compressed by itself; else 0."""
    if len(extensions) != 1:
        return 0
    (extension,) = extensions
    if isinstance(extension, Wrapping):
        extension = extension.inner
    if isinstance(extension, PerMessageDeflate) and extension.local_no_context_takeover:
        return extension.local_max_window_bits
    return 0
