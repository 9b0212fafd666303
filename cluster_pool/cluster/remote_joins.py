"""Executes joins and leaves that others order for the connections of this node.

A join takes a round trip to Redis, so each order has a task of its own: the dispatcher never waits.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from functools import partial
from typing import Any, Final

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.cluster.hooks import Hooks
from cluster_pool.cluster.joins import Joins
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.core.closing import NORMAL
from cluster_pool.core.config import Timing
from cluster_pool.core.ids import shown
from cluster_pool.core.results import SendResult
from cluster_pool.exceptions import ClusterPoolError
from cluster_pool.local.attachment import is_expired
from cluster_pool.local.connection import Connection
from cluster_pool.local.membership import Departure, Membership
from cluster_pool.local.outbox import kick
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool")

Tell = Callable[[SendResult], None]

MOST_ORDERS: Final = 10_000
"""Orders that are under way at the same time, at most; further ones are refused."""


class RemoteJoins:
    """Joins and removals for one node."""

    def __init__(
        self,
        table: ConnectionTable,
        ownership: Ownership,
        joins: Joins,
        hooks: Hooks,
        timing: Timing,
    ) -> None:
        self._table = table
        self._ownership = ownership
        self._joins = joins
        self._hooks = hooks
        self._timing = timing
        self._tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """Cancel the orders that are under way; those who gave them are told REFUSED."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def join(
        self,
        membership: Membership[Connection],
        joined: str,
        id: str | None,
        on_conflict: str | None,
        tell: Tell,
    ) -> None:
        """Have the connection of a membership join a namespace, and tell the result."""
        if is_expired(membership.connection):
            tell(SendResult.REFUSED)
            return
        join = self._joins.join(membership.connection, joined, id, on_conflict, None)
        self._spawn(membership, join, tell)

    def leave(self, membership: Membership[Connection], left: str, tell: Tell) -> None:
        """Have the connection of a membership leave a namespace, and tell the result."""
        self._spawn(membership, self._leave(membership.connection, left), tell)

    def _spawn(
        self, membership: Membership[Connection], work: Coroutine[Any, Any, Any], tell: Tell
    ) -> None:
        if len(self._tasks) >= MOST_ORDERS:
            work.close()
            tell(SendResult.REFUSED)
            return
        task = asyncio.create_task(self._execute(membership, work, tell))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _execute(
        self, membership: Membership[Connection], work: Coroutine[Any, Any, Any], tell: Tell
    ) -> None:
        """Do the work once the membership is decided, if it is new."""
        result = SendResult.REFUSED
        try:
            decided = self._ownership.decided(membership)
            if decided is not None:
                await asyncio.wait((decided,), timeout=self._timing.timeout)
            await work
            result = SendResult.DELIVERED
        except ClusterPoolError as error:
            log.debug("refused an order for %r: %s", membership.connection, error)
        except TimeoutError:
            result = SendResult.TIMED_OUT
        finally:
            work.close()
            tell(result)

    async def _leave(self, connection: Connection, left: str) -> None:
        async with self._joins.turn(connection, left, deadline_in(self._timing.timeout)):
            membership = self._table.membership_in(connection, left)
            departure = None if membership is None else self.remove(membership)
        if departure is not None:
            async with asyncio.timeout(self._timing.timeout):
                await asyncio.shield(departure.over)

    async def remove_all(self, namespace: str, exclude: Collection[str]) -> None:
        """End every membership of a namespace here but the excluded."""
        async for part in self._table.parts(namespace, exclude):
            for membership in part:
                self.remove(membership)

    def remove(self, membership: Membership[Connection]) -> Departure:
        """End a membership: close its connection if this is its home, else tell it."""
        if membership.home:
            kick(membership.connection, NORMAL, "")
        if membership.departure is not None:
            return membership.departure
        self._table.tell_left(membership, "removed")
        departure = self._ownership.release(membership)
        departure.over.add_done_callback(partial(self._departed, departure))
        return departure

    def _departed(self, departure: Departure, over: "asyncio.Future[None]") -> None:
        undecided = departure.undecided
        if undecided is not None:
            undecided.add_done_callback(partial(self._departed, departure))
        elif departure.pop_emptied():
            log.debug("removed the last member of %s", shown(departure.namespace))
            self._hooks.emptied(departure.namespace)
