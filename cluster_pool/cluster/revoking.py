"""Revokes tokens: the call of pools and publishers.

The revocation is recorded first, then each living node is told to read it. What a node does not
hear it reads with its next heartbeat, or when it rejoins.
"""

import asyncio
import logging
import time
from typing import Final, Protocol

from cluster_pool.backplane.backplane import Backplane
from cluster_pool.cluster.orders import NodeOrders
from cluster_pool.core.claims import LATEST
from cluster_pool.core.ids import check_token_id, shown
from cluster_pool.exceptions import ClusterPoolError, InvalidValueError

log = logging.getLogger("cluster_pool.auth")

REVOKED: Final = "revoked"
"""The order to read the revocations."""


class OwnRevocations(Protocol):
    """The revocations that the node in this process knows."""

    async def read(self) -> None:
        """Read them, and close the connections that they name."""


class Revoking:
    """Records revocations, and tells the nodes of them."""

    def __init__(
        self, backplane: Backplane, orders: NodeOrders, own: OwnRevocations | None
    ) -> None:
        self._deadline = backplane.deadline
        self._loop = backplane.loop
        self._node_id = backplane.identity.node_id
        self._leases = backplane.leases
        self._revocations = backplane.revocations
        self._orders = orders
        self._own = own

    async def revoke(self, token_id: str, until: float, timeout: float | None) -> int:
        """Revoke a token; returns the number of nodes that have read it."""
        token_id, until_ms = check_token_id(token_id), check_until(until)
        deadline = self._deadline(timeout)
        await self._revocations.record([(token_id, until_ms)], deadline)
        try:
            living = await self._leases.living(deadline)
        except ClusterPoolError as error:
            log.debug("no node was told of a revoked token: %s", error)
            return 0
        nodes = set(living.values())
        told = await asyncio.gather(*[self._tell(node, deadline) for node in nodes])
        return sum(told)

    async def _tell(self, node_id: str, deadline: float) -> bool:
        """Whether a node says in time that it has read the revocations."""
        try:
            if self._own is not None and node_id == self._node_id:
                await self._own.read()
            else:
                left = max(deadline - self._loop.time(), 0.001)
                await self._orders.give(node_id, REVOKED, left)
        except ClusterPoolError as error:
            log.debug("node %s reads a revoked token later: %s", shown(node_id), error)
            return False
        return True


def check_until(until: object) -> int:
    """A time in the future, in seconds since 1970, as ms that Redis counts exactly.

    Raises InvalidValueError if it is no such time.
    """
    if not isinstance(until, int | float) or isinstance(until, bool):
        raise InvalidValueError(f"until must be seconds since 1970, not {shown(until)}")
    if not time.time() < until <= LATEST // 1000:
        raise InvalidValueError(f"until must be a time in the future, not {shown(until)}")
    return int(until * 1000)
