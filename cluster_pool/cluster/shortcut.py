"""Sends to connections of the same node, without Redis."""

from cluster_pool.backplane.outbound import Outbound
from cluster_pool.backplane.shard import Shard
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.node_life import NodeLife
from cluster_pool.cluster.positions import Accounts
from cluster_pool.cluster.sending import Receipt
from cluster_pool.core.message import Outgoing
from cluster_pool.core.results import NodeState, SendResult
from cluster_pool.exceptions import PoolClosedError
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import deliver, kick
from cluster_pool.local.pinging import expect
from cluster_pool.local.table import ConnectionTable


class LocalShortcut:
    """Sends to local connections, if that is safe without asking Redis; see :class:`Shortcut`."""

    def __init__(
        self,
        life: NodeLife,
        table: ConnectionTable,
        lease: LeaseState,
        shard: Shard,
        outbound: Outbound,
        accounts: Accounts,
    ) -> None:
        self._accounts = accounts
        self._life = life
        self._table = table
        self._lease = lease
        self._shard = shard
        self._outbound = outbound

    def send(
        self,
        namespace: str,
        id: str,
        text: bool,
        payload: bytes,
        close: tuple[int, str] | None,
        receipt: Receipt | None = None,
    ) -> SendResult | None:
        """See :class:`Shortcut`; raises PoolClosedError when the node is stopping."""
        connection = self._find(namespace, id)
        if connection is None or self._accounts.keeps(connection, namespace):
            return None
        result = deliver(connection, Outgoing(text, payload, (namespace, "", 0)))
        self._count(result)
        _await(connection, receipt, result)
        if close is not None and result:
            kick(connection, *close)
        return result

    def close(
        self, namespace: str, id: str, code: int, reason: str, receipt: Receipt | None = None
    ) -> SendResult | None:
        """See :class:`Shortcut`; raises PoolClosedError when the node is stopping."""
        connection = self._find(namespace, id)
        if connection is None:
            return None
        self._count(SendResult.DELIVERED)
        _await(connection, receipt, SendResult.DELIVERED)
        kick(connection, code, reason)
        return SendResult.DELIVERED

    def _count(self, result: SendResult) -> None:
        if result is SendResult.DELIVERED:
            self._table.counters.sends_delivered += 1
        else:
            self._table.counters.sends_refused += 1

    def _find(self, namespace: str, id: str) -> Connection | None:
        """The connection here, if a message given to it now overtakes no other from this node.

        A node that slept past its lease may have lost the id. A node that knows that Redis is away
        goes on serving its connections. So does one that cannot reach the shard of a namespace, or
        listens to a former primary of it: another node may have the id by now, as it may on one
        Redis while the takeover is on its way. The connection here is open until this node hears
        of that, and DELIVERED says no more.
        """
        if self._life.state is NodeState.STOPPED:
            raise PoolClosedError("not started, or stopped")
        membership = self._table.get(namespace, id)
        if membership is None or self._table.namespace_busy(namespace):
            return None
        if self._shard.up and not self._lease.unbroken:
            return None
        return membership.connection if self._outbound.quiet(namespace) else None


def _await(connection: Connection, receipt: Receipt | None, result: SendResult) -> None:
    """Tell the result, or the receipt of the client if it can be had."""
    if receipt is not None and not (result and expect(connection, *receipt)):
        receipt[0](result)
