"""The revocations that a node has read: refuses their tokens, and closes their connections.

They are read before the node takes newcomers, with each heartbeat, before it registers anything
under a new incarnation, and when an order says that there is a new one. Each reading asks for what
came after the one before. So an accept, which only looks at what is known, costs no round trip.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final

from cluster_pool.auth.identity import Identity
from cluster_pool.auth.revoked import RevokedTokens
from cluster_pool.backplane.backplane import Backplane
from cluster_pool.backplane.revocations import PAGE, Revocation
from cluster_pool.cluster.lease_keeper import Keep
from cluster_pool.core.closing import UNAUTHORIZED
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import AuthenticationError, ClusterPoolError
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import kick

log = logging.getLogger("cluster_pool.auth")

SLICE: Final = 1000
"""Connections between two yields."""
REASON: Final = "revoked"


class RevocationReader:
    """Reads the revocations for one node.

    Args:
        connections: all connections of this node.
    """

    def __init__(
        self, backplane: Backplane, counters: Counters, connections: Callable[[], list[Connection]]
    ) -> None:
        self._deadline = backplane.deadline
        self._revocations = backplane.revocations
        self._counters = counters
        self._connections = connections
        self._revoked = RevokedTokens()
        self._after = 0
        """The moment of the last one that was read."""
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- newcomers -------------------------------------------------------------------------

    def check_identity(self, identity: Identity) -> None:
        """Raise AuthenticationError if the token of an identity is revoked; counted."""
        if self._revoked.names(identity, time.time()):
            self._counters.revoked += 1
            raise AuthenticationError("the token is revoked")

    def recheck(self, connection: Connection) -> None:
        """Close a connection whose token was revoked while it was being claimed or renewed."""
        if self._revoked.names(connection.identity, time.time()):
            self._close(connection)

    # -- reading ---------------------------------------------------------------------------

    def wake(self) -> None:
        """Read what is new, unless that is under way."""
        if not self._tasks:
            self._spawn(self._try_reading(lambda why: None))

    def execute_order(self, answer: Callable[[str], None]) -> None:
        """Read what is new; ``answer`` gets "" when that is done, or why it is not."""
        self._spawn(self._try_reading(answer))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="cluster_pool revocations")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _try_reading(self, answer: Callable[[str], None]) -> None:
        try:
            await self.read()
        except ClusterPoolError as error:
            log.debug("revocations are read later: %s", error)
            answer(str(error))
        else:
            answer("")

    async def read(self) -> None:
        """Read what is new, and close the connections that it names."""
        async with self._lock:
            await self._read(_nothing)

    async def read_all(self, keep: Keep) -> None:
        """Read all, since Redis may have another state; record again what it has lost.

        ``keep`` renews the lease in between.
        """
        async with self._lock:
            self._after = 0
            present = await self._read(keep)
            known = self._revoked.entries(time.time())
            lost = [(name, int(known[name] * 1000)) for name in known.keys() - present]
            for at in range(0, len(lost), PAGE):
                await self._revocations.record(lost[at : at + PAGE], self._deadline(None))
                await keep()

    async def _read(self, keep: Keep) -> set[str]:
        """Returns the tokens that were read."""
        present: set[str] = set()
        async for page in self._revocations.read(self._after, lambda: self._deadline(None)):
            present.update(one.token_id for one in page)
            await self._take(page)
            await keep()
        self._revoked.entries(time.time())
        return present

    async def _take(self, page: list[Revocation]) -> None:
        """Know a page of revocations, and close the connections that it names."""
        now = time.time()
        news = {one.token_id for one in page if self._add(one.token_id, one.until_ms, now)}
        if news:
            await self._close_all(news)
        if page:
            self._after = page[-1].moment

    def _add(self, token_id: str, until_ms: int, now: float) -> bool:
        return self._revoked.add(token_id, until_ms / 1000, now)

    async def _close_all(self, token_ids: set[str]) -> None:
        """Close the connections whose token is among these."""
        for at, connection in enumerate(self._connections(), 1):
            identity = connection.identity
            if identity is not None and identity.token_id in token_ids and not connection.closed:
                self._close(connection)
            if at % SLICE == 0:
                await asyncio.sleep(0)

    def _close(self, connection: Connection) -> None:
        if not connection.closed:
            self._counters.revoked += 1
            log.debug("revoked: %r", connection)
            kick(connection, UNAUTHORIZED, REASON)

    async def stop(self) -> None:
        """End all readings."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _nothing() -> None:
    """Between two pages there is nothing to do: another task renews the lease."""
