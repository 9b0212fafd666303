"""The packets that a Socket.IO client must understand on a raw WebSocket: as bytes, no I/O.

Engine.IO protocol 4 (one packet per text message, a digit in front) with Socket.IO protocol 5
inside (https://socket.io/docs/v4/engine-io-protocol and …/socket-io-protocol). Only the main
namespace, only events of one text argument, no polling, no binary attachments.
"""

import json
from typing import NamedTuple

PATH = "/socket.io/?EIO=4&transport=websocket"
OPEN, PING, NOOP = b"0", b"2", b"6"
CONNECTED, EVENT = b"40", b"42"
JOIN, PONG = b"40", b"3"


class Packet(NamedTuple):
    """A packet, and the reaction to it.

    Attributes:
        reply: the packet to answer with, b"" for none.
        joined: the main namespace is open from now on.
        message: the text of an event, None when it is no event.
    """

    reply: bytes = b""
    joined: bool = False
    message: bytes | None = None


class ProtocolError(Exception):
    """The other side refused, hung up, or said what is not understood here."""


def read(packet: bytes) -> Packet:
    """Read one packet.

    Raises:
        ProtocolError: it is no packet that a server of these protocols sends to this client.
    """
    if packet.startswith(EVENT):
        return Packet(message=_text(packet))
    if packet.startswith(OPEN):
        return Packet(reply=JOIN)
    if packet.startswith(PING):
        return Packet(reply=PONG + packet[1:])
    if packet.startswith(CONNECTED):
        return Packet(joined=True)
    if packet == NOOP:
        return Packet()
    raise ProtocolError(f"unexpected packet: {packet[:100]!r}")


def _text(packet: bytes) -> bytes:
    try:
        match json.loads(packet[len(EVENT) :]):
            case ["message", str(text)]:
                return text.encode()
    except ValueError:
        pass
    raise ProtocolError(f"not a text message: {packet[:100]!r}")
