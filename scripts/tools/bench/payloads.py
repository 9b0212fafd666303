"""Payloads: 128 bytes with a sequence number and, for a targeted message, the id it is for.

The clients check both, so that a message lost, doubled, reordered or misrouted is seen.
"""

import uuid

SIZE = 128
TO_ALL = b"*"
DIGITS = 8
ID_AT = DIGITS + 1
_STEP = 0x9E3779B97F4A7C15F39CC0605CEDC835


def member_id(index: int) -> str:
    """The id of a connection: a UUID of 36 bytes, the same in every process."""
    return str(uuid.UUID(int=(index + 1) * _STEP % (1 << 128), version=4))


def payload(number: int, id: str = "") -> bytes:
    """Message ``number`` of its sender, for one id or for all."""
    text = b"%08d %s " % (number, id.encode() or TO_ALL)
    return text.ljust(SIZE, b".")
