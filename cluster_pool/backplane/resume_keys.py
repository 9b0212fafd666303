"""The key by which the words of clients are sealed: of the secret, or one that is in Redis.

Who can read Redis can read all histories, so that a key in there keeps nothing from them.
"""

import asyncio
import secrets
from math import inf
from typing import Final

from cluster_pool.backplane.shard import Shard
from cluster_pool.core.keys import Keys
from cluster_pool.core.resumes import ResumeSeals
from cluster_pool.core.seals import Seals
from cluster_pool.exceptions import BackplaneUnavailableError

TTL: Final = 30 * 86_400
"""Seconds for which the key is kept after its last use."""
KNOWN_FOR: Final = 60.0
"""Seconds after which it is read and kept again."""


class ResumeKeys:
    """The key of one start; in Redis the first that needs it makes it.

    Attributes:
        known: the seals as they were read last; None before that.
    """

    def __init__(self, shard: Shard, keys: Keys, seals: Seals | None) -> None:
        self._shard = shard
        self._key = keys.resumes
        self.known = None if seals is None else ResumeSeals(seals.keys)
        self._until = 0.0 if seals is None else inf

    async def read(self, deadline: float) -> ResumeSeals:
        """The seals; raises BackplaneUnavailableError when Redis did not answer in time."""
        now, known = asyncio.get_running_loop().time(), self.known
        if known is None or now >= self._until:
            if known is not None:
                self._until = now + KNOWN_FOR  # others go on with what is known
            known = self.known = ResumeSeals([await self._read(deadline)])
            self._until = now + KNOWN_FOR
        return known

    async def _read(self, deadline: float) -> bytes:
        fresh = secrets.token_hex(32)
        await self._shard.call(deadline, "SET", self._key, fresh, "NX", "EX", TTL)
        found: bytes | None = await self._shard.call(deadline, "GET", self._key)
        if not found or len(found) != len(fresh):
            raise BackplaneUnavailableError("the key of clients that come back is lost")
        await self._shard.call(deadline, "EXPIRE", self._key, TTL)
        return found
