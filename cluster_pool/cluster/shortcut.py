"""The way from a send to a connection of the same node, without Redis."""

from cluster_pool.backplane.outbound import Outbound
from cluster_pool.backplane.shard import Shard
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.node_life import NodeLife
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import deliver, kick
from cluster_pool.local.table import ConnectionTable


class LocalShortcut:
    """Finds connections that may be sent to without asking Redis; see :class:`Shortcut`."""

    deliver = staticmethod(deliver)
    kick = staticmethod(kick)

    def __init__(
        self,
        life: NodeLife,
        table: ConnectionTable,
        lease: LeaseState,
        shard: Shard,
        outbound: Outbound,
    ) -> None:
        self._life = life
        self._table = table
        self._lease = lease
        self._shard = shard
        self._outbound = outbound

    def find(self, namespace: str, id: str) -> Connection | None:
        """The connection here, when what it is given now can overtake nothing from this node.

        A node that slept past its lease may have lost the id; one that knows that Redis is away
        goes on serving its connections.

        Raises:
            PoolClosedError: the node is stopping.
        """
        self._life.check_running()
        membership = self._table.get(namespace, id)
        if membership is None or self._table.namespace_busy(namespace):
            return None
        if self._shard.up and not self._lease.unbroken:
            return None
        return membership.connection if self._outbound.quiet(namespace) else None
