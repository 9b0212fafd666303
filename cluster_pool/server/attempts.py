"""Decides whether Redis is tried for a client while it cannot be reached.

If every client waited for its time-out, none of them would be read from, and they would look dead.
So one task at a time tries, now and then, and all others are told at once that it is in vain.
"""

import asyncio
import contextlib
from collections.abc import Hashable, Iterator
from typing import Final

from cluster_pool.exceptions import BackplaneUnavailableError

PAUSE: Final = 0.5
"""Seconds between two attempts while Redis cannot be reached."""


class Attempts:
    """Which servers were tried in vain lately: a Redis Cluster has several.

    Use it like this: ``if attempts.allowed(server): with attempts.begin(server): …``
    """

    def __init__(self) -> None:
        self._again_at: dict[Hashable, float] = {}
        self._trying: set[Hashable] = set()

    def allowed(self, server: Hashable) -> bool:
        """Whether it is worth a try now."""
        again_at = self._again_at.get(server)
        if again_at is None:
            return True
        return server not in self._trying and asyncio.get_running_loop().time() >= again_at

    @contextlib.contextmanager
    def begin(self, server: Hashable) -> Iterator[None]:
        """Try it: the body raises BackplaneUnavailableError if it was in vain."""
        lone = server in self._again_at
        if lone:
            self._trying.add(server)
        try:
            yield
            self._again_at.pop(server, None)
        except BackplaneUnavailableError:
            self._again_at[server] = asyncio.get_running_loop().time() + PAUSE
            raise
        finally:
            if lone:
                self._trying.discard(server)
