"""Revoked tokens in Redis: recorded, and read in the order in which they were recorded.

They have the hash tag of what belongs to no namespace, so on a Redis Cluster they are at home.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple

from cluster_pool.backplane import script_calls
from cluster_pool.backplane.calls import text_of
from cluster_pool.backplane.shard import Shard
from cluster_pool.core.keys import Keys

PAGE: Final = 500
"""Revocations of one call."""


class Revocation(NamedTuple):
    """One token that was revoked.

    Attributes:
        moment: when that was recorded, in µs of Redis; greater than that of each before it.
        until_ms: since 1970.
    """

    moment: int
    token_id: str
    until_ms: int


class Revocations:
    """The revocations of a cluster."""

    def __init__(self, shard: Shard, keys: Keys) -> None:
        self._shard = shard
        self._keys = keys

    async def record(self, entries: Sequence[tuple[str, int]], deadline: float) -> None:
        """Record at most ``PAGE`` tokens by id as revoked until a time in ms.

        Entries whose time is over are removed.
        """
        await self._shard.script(deadline, script_calls.revoke(self._keys, entries=entries))

    async def read(
        self, after: int, deadline: Callable[[], float]
    ) -> AsyncIterator[list[Revocation]]:
        """Gives all that were recorded after a moment, the oldest first, in pages.

        Args:
            deadline: gives that of the next page; of a million revocations there are 2,000.
        """
        while True:
            call = script_calls.read_revocations(self._keys, last_read=after, most=PAGE)
            flat = await self._shard.script(deadline(), call)
            found = list(zip(flat[::3], flat[1::3], flat[2::3], strict=True))
            named = [(moment, text_of(token_id), until) for moment, token_id, until in found]
            yield [Revocation(int(m), name, int(u)) for m, name, u in named if name is not None]
            if len(found) < PAGE:
                return
            after = int(found[-1][0])
