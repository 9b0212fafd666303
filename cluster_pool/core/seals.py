"""Seals: items between nodes are authenticated one by one, if the cluster has a secret.

A sealed item is ``[8 or 9, counter, seal, item]``, where the seal is a keyed BLAKE2b (RFC 7693)
over the scope, the sender's start, the counter and the item's bytes. ``BOUND`` (8) is valid on one
channel only, and on a node's own channel only for one start of that node; ``ROUTED`` (9) names its
member inside and is valid on any node's channel.

A sender's counters only grow, and each is at least the Redis time in µs at which it was made. So a
replayed item is refused by every process that has heard the sender since. A process that came later
sees from the counter that the item was sealed before it came. An item that was under way meanwhile
was published by Redis within ``GOOD_FOR`` seconds after its seal, or not at all.
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
GOOD_FOR: Final = 2.0
"""Seconds in which Redis publishes a sealed item; one that is late is sealed and sent again."""
GOOD_FOR_US: Final = int(GOOD_FOR * 1_000_000)
RECORDED_US: Final = 2 * GOOD_FOR_US
"""How far the time of an item in a history may be from its counter: that may be ahead a little."""
FRESH_US: Final = 300 * 1_000_000
"""How old an item may be: a node that waits for its lease keeps what it hears for later."""
MAX_SENDERS: Final = 10_000

Secret = str | bytes


class Seals:
    """Seals with the first secret, and accepts items sealed with any of them.

    Args:
        secrets: of at least 16 bytes each; during a change of the secret, the new and the old.

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
        self._forgotten = 0
        """The newest counter of all senders that were dropped from ``_heard``."""

    @property
    def keys(self) -> Sequence[bytes]:
        """For other seals, which must not be taken for these: they need a ``person`` of their own.
        The first one is that to seal with."""
        return self._keys

    def seal(self, kind: int, scope: str, sender: str, item: bytes, now: int) -> bytes:
        """A sealed item; call in the order of publishing.

        ``now`` is the Redis time in µs, or a little more, but never less.
        """
        self._counter = max(self._counter + 1, now)
        seal = _seal(self._keys[0], kind, scope, sender, self._counter, item)
        return pack((kind, self._counter, seal, item))

    def open(
        self, scopes: dict[int, str], sender: str, item: Sequence[Any], now: int, lane: str = ""
    ) -> tuple[int, list[Any]]:
        """The counter of a sealed item, and the item inside; ``scopes`` has the scope of each kind.

        ``now`` is the Redis time in µs, or a little less. Within a ``lane`` the items of a sender
        arrive in order: there is one, or on a Redis Cluster one for each namespace.

        Raises:
            BrokenEnvelopeError: "seal" for an item without a valid one, "replay" for one that was
                heard before or is too old to tell.
        """
        counter, inner = self._verified(scopes, sender, item)
        self._check_fresh(f"{sender} {lane}" if lane else sender, counter, now)
        (opened,) = read_items(inner)
        return counter, opened

    def open_recorded(
        self, scopes: dict[int, str], sender: str, item: Sequence[Any], earliest: int, latest: int
    ) -> tuple[int, list[Any]]:
        """As :meth:`open`, for an item of a history, which was published from ``earliest`` to
        ``latest``, in µs of Redis.

        It may be opened any number of times. The caller compares the counters of one sender, which
        only grow in a history: each item is there once.
        """
        counter, inner = self._verified(scopes, sender, item)
        if not earliest - RECORDED_US <= counter <= latest + RECORDED_US:
            raise BrokenEnvelopeError("replay")
        (opened,) = read_items(inner)
        return counter, opened

    def _verified(
        self, scopes: dict[int, str], sender: str, item: Sequence[Any]
    ) -> tuple[int, bytes]:
        """The counter and the bytes of an item whose seal is valid."""
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
        return counter, inner

    def _check_fresh(self, sender: str, counter: int, now: int) -> None:
        last = self._heard.get(sender)
        if last is None:
            last = min(self._forgotten, now - GOOD_FOR_US)
        if counter <= last or counter <= now - FRESH_US:
            raise BrokenEnvelopeError("replay")
        self._heard[sender] = counter
        self._heard.move_to_end(sender)
        if len(self._heard) > MAX_SENDERS:
            self._forgotten = max(self._forgotten, self._heard.popitem(last=False)[1])


def own_scope(channel: str, start: str) -> str:
    """The scope of items for one start of a node on its own channel."""
    return f"{channel} {start}"


def sealed_before(arrival: int, counter: int, now: int) -> bool:
    """Whether an item was sealed before ``arrival``, the Redis time in µs at which a member came.

    ``now`` is the present Redis time, or a little more. An arrival later than that is from before
    the clock of Redis was set back, and tells nothing: then only a recent item counts as later.
    """
    return counter < (arrival if arrival <= now else now - GOOD_FOR_US)


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
