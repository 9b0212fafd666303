"""Words by which clients give the positions that they keep themselves. Pure.

A position alone would let its bearer read on from there. So a member gets a word with the position
where it began, sealed for its namespace, id and user; with that it may give any position from there
on. It is the position, a dot and a keyed BLAKE2b (RFC 7693).
"""

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from cluster_pool.core.envelope import pack
from cluster_pool.core.history import Position

SEAL_BYTES: Final = 15
_WORD: Final = re.compile(r"(\d{1,16}\.\d{1,13})\.([\w-]{20})", re.ASCII)


class ResumeSeals:
    """Seals by the first of some keys, and reads what was sealed by any of them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def word(self, start: Position, namespace: str, id: str, user: str | None) -> str:
        """The word for a member that began at a position."""
        return f"{start}.{_seal(self._keys[0], str(start), namespace, id, user)}"

    def start_in(self, word: str, namespace: str, id: str, user: str | None) -> Position | None:
        """The position in the word of a member; None if the word is not its own."""
        found = _WORD.fullmatch(word)
        if found is None:
            return None
        good = any(
            hmac.compare_digest(found[2], _seal(key, found[1], namespace, id, user))
            for key in self._keys
        )
        return Position.of(found[1]) if good else None


def _seal(key: bytes, start: str, namespace: str, id: str, user: str | None) -> str:
    said = pack((start, namespace, id, user))
    digest = blake2b(said, key=key, digest_size=SEAL_BYTES, person=b"resume").digest()
    return urlsafe_b64encode(digest).decode()
