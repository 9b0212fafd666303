"""The users of one namespace as ``watch_users`` tells of them: each comes and leaves in turn."""

import asyncio
import contextlib

from cluster_pool import BackplaneUnavailableError, ClusterPool
from tools.harness.obeying import tell

GRACE = 1.0
"""Seconds within which a user may come back."""
AGAIN = 0.2


class Arrivals:
    """Follows the users of a namespace, and tells at once of one who comes or leaves twice."""

    def __init__(self, pool: ClusterPool, namespace: str) -> None:
        self._pool = pool
        self._namespace = namespace
        self._last: dict[str, str] = {}
        self._task = asyncio.create_task(self._follow())

    def known(self) -> dict[str, bool]:
        """Whether each user is there who has come or left since this began."""
        return {user: event == "join" for user, event in self._last.items()}

    async def stop(self) -> None:
        """Follow them no more."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            self._last.clear()
            with contextlib.suppress(BackplaneUnavailableError):
                async for event in self._pool.watch_users(self._namespace, grace=GRACE):
                    self._take(event.user, event.event)
            await asyncio.sleep(AGAIN)

    def _take(self, user: str, event: str) -> None:
        if self._last.get(user) == event:
            tell("logged", [f"{user} in {self._namespace} has a second {event}", ""])
        self._last[user] = event
