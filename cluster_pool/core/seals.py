"""Seals: what nodes say to each other, authenticated item by item, if the cluster has a secret.

A sealed item is ``[8 or 9, counter, seal, item]``, where the seal is a keyed BLAKE2b (RFC 7693)
over the scope, the sender's start, the counter and the item's bytes. ``BOUND`` (8) belongs to the
channel on which it is heard; ``ROUTED`` (9) names its member inside and goes wherever the registry
says. A sender's counters only grow, and begin at the Redis time in µs, so that what was recorded is
refused by those who heard it and, after a while, by those who did not.
"""

import hmac
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

from cluster_pool.core.envelope import BrokenEnvelopeError, pack, read_items
from cluster_pool.exceptions import InvalidValueError

BOUND: Final = 8
ROUTED: Final = 9
SEAL_BYTES: Final = 16
MIN_SECRET_BYTES: Final = 16
FRESH_US: Final = 300 * 1_000_000
"""How old the first item of a sender that is new to this node may be."""
MAX_SENDERS: Final = 10_000

Secret = str | bytes


class Seals:
    """Seals with the first secret, and accepts what was sealed with any of them.

    Args:
        secrets: of at least 16 bytes each; while a new one is brought in, the new and the old.

    Raises:
        InvalidValueError: a secret is too short, or there is none. The text does not contain it.
    """

    def __init__(self, secrets: "Secret | Iterable[Secret]") -> None:
        given = [secrets] if isinstance(secrets, str | bytes) else list(secrets)
        self._keys = [_key(secret) for secret in given]
        if not self._keys:
            raise InvalidValueError("secret must hold at least one secret")
        self._counter = 0
        self._heard: OrderedDict[str, int] = OrderedDict()

    def seal(self, kind: int, scope: str, sender: str, item: bytes, now: int) -> bytes:
        """A sealed item; call in the order of publishing. ``now`` is the Redis time in µs."""
        self._counter = max(self._counter + 1, now)
        seal = _seal(self._keys[0], kind, scope, sender, self._counter, item)
        return pack((kind, self._counter, seal, item))

    def open(self, scopes: dict[int, str], sender: str, item: Sequence[Any], now: int) -> list[Any]:
        """The item inside a sealed one, with the scope that each kind must have.

        Raises:
            BrokenEnvelopeError: "seal" for what has none that is valid, "replay" for what was
                heard before or is too old to tell.
        """
        try:
            kind, counter, seal, inner = item
            scope = scopes[kind]
            good = any(
                hmac.compare_digest(seal, _seal(key, kind, scope, sender, counter, inner))
                for key in self._keys
            )
        except (ValueError, KeyError, TypeError):
            good = False
        if not good:
            raise BrokenEnvelopeError("seal")
        self._check_fresh(sender, counter, now)
        (opened,) = read_items(inner)
        return opened

    def _check_fresh(self, sender: str, counter: int, now: int) -> None:
        last = self._heard.get(sender, now - FRESH_US)
        if counter <= last:
            raise BrokenEnvelopeError("replay")
        self._heard[sender] = counter
        self._heard.move_to_end(sender)
        if len(self._heard) > MAX_SENDERS:
            self._heard.popitem(last=False)


def _key(secret: object) -> bytes:
    try:
        raw = secret.encode() if isinstance(secret, str) else secret
    except UnicodeEncodeError:
        raise InvalidValueError("a secret that is str must have a UTF-8 form") from None
    if not isinstance(raw, bytes) or len(raw) < MIN_SECRET_BYTES:
        raise InvalidValueError(f"a secret must be str or bytes, at least {MIN_SECRET_BYTES} bytes")
    return blake2b(raw, person=b"cluster_pool").digest()


def _seal(key: bytes, kind: int, scope: str, sender: str, counter: int, item: bytes) -> bytes:
    head = f"{kind}\n{scope}\n{sender}\n{counter:d}\n".encode()
    return blake2b(head + item, key=key, digest_size=SEAL_BYTES).digest()
