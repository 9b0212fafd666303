"""How a connection becomes a member, and how its membership ends: what users call and await."""

import asyncio
import inspect
import logging

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.hooks import Hooks
from cluster_pool.cluster.node_life import NodeLife
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.core.config import check_on_conflict
from cluster_pool.core.results import NodeState
from cluster_pool.exceptions import ClusterPoolError, NodeDrainingError, PoolClosedError
from cluster_pool.local import attachment
from cluster_pool.local.connection import Connection
from cluster_pool.local.protocol import EmptyCallback
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool")


class Admission:
    """Lets connections in while the node takes newcomers, and out at any time.

    Args:
        takeover: whether a claim takes an id over when the call does not say.
    """

    def __init__(
        self,
        backplane: Backplane,
        life: NodeLife,
        table: ConnectionTable,
        ownership: Ownership,
        hooks: Hooks,
        takeover: bool,
    ) -> None:
        self._deadline = backplane.deadline
        self._identity = backplane.identity
        self._outage = backplane.shard.outage
        self._life = life
        self._table = table
        self._ownership = ownership
        self._hooks = hooks
        self._takeover = takeover

    async def join(
        self, connection: Connection, on_conflict: str | None, timeout: float | None
    ) -> None:
        """Make a connection a member; see :meth:`ClusterPool.new_connection`."""
        deadline = self._deadline(timeout)
        takeover = self._takeover if on_conflict is None else check_on_conflict(on_conflict)
        try:
            self._check_open()
            await self._claim(connection, takeover, deadline)
        except BaseException as error:
            log.debug("refused: %r: %r", connection, error)
            raise
        log.debug("joined: %r", connection)

    def _check_open(self) -> None:
        state = self._life.state
        if state in (NodeState.DRAINING, NodeState.DRAINED):
            raise NodeDrainingError(f"node {self._identity.node_id} is {state.value}")
        if state not in (NodeState.ACTIVE, NodeState.ANNOUNCING):
            raise PoolClosedError(f"node {self._identity.node_id} is {state.value}")

    async def _claim(self, connection: Connection, takeover: bool, deadline: float) -> None:
        if connection.claim is not None:
            raise ClusterPoolError(f"{connection!r} is a member already")
        attachment.attach(connection, self._table)
        try:
            await self._ownership.claim(connection, takeover=takeover, deadline=deadline)
        except BaseException:
            attachment.detach(connection)
            raise

    async def leave(
        self, connection: Connection, on_empty: EmptyCallback | None, timeout: float | None
    ) -> None:
        """End a connection's membership; see :meth:`ClusterPool.remove_connection`."""
        deadline = self._deadline(timeout)
        if connection.departure is None and connection.claim is None:
            return
        departure = self._ownership.release(connection)
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(departure)
        except TimeoutError:
            if on_empty is not None:
                departure.add_done_callback(lambda done: self._emptied_late(connection, on_empty))
            raise self._outage.error("not released yet", maybe_executed=True) from None
        if on_empty is not None and _take_emptied(connection):
            result = on_empty()
            if inspect.isawaitable(result):
                await result

    def _emptied_late(self, connection: Connection, callback: EmptyCallback) -> None:
        if _take_emptied(connection):
            self._hooks.call("empty", callback)


def _take_emptied(connection: Connection) -> bool:
    """Whether a connection's release emptied its namespace; true for the first to ask."""
    departure = connection.departure
    if departure is None or departure.cancelled() or departure.exception():
        return False
    if not departure.result():
        return False
    connection.departure = asyncio.get_running_loop().create_future()
    connection.departure.set_result(False)
    return True
