"""One start of a node: every part of it, built in one constructor, started and stopped in order."""

import asyncio
import contextlib
import logging
from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any, Final

from cluster_pool.backplane.backplane import Backplane, Setup
from cluster_pool.backplane.reaping import Reaping
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.upkeep import Upkeep
from cluster_pool.cluster.admission import Admission
from cluster_pool.cluster.capacity import Capacity
from cluster_pool.cluster.delivery import Delivery
from cluster_pool.cluster.directory import ClusterDirectory
from cluster_pool.cluster.dispatcher import Dispatcher, Turn
from cluster_pool.cluster.drain import DrainController
from cluster_pool.cluster.expiries import Expiries
from cluster_pool.cluster.histories import HistoryReading
from cluster_pool.cluster.hooks import Hooks
from cluster_pool.cluster.inbound import InboundChannel
from cluster_pool.cluster.joins import Joins
from cluster_pool.cluster.last_ones import LastOnes
from cluster_pool.cluster.lease import LeaseState
from cluster_pool.cluster.lease_keeper import Keep, LeaseKeeper
from cluster_pool.cluster.life import in_turn
from cluster_pool.cluster.namespaces import Namespaces
from cluster_pool.cluster.node_life import NodeLife
from cluster_pool.cluster.orders import NodeOrders
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.cluster.people import People
from cluster_pool.cluster.positions import Accounts
from cluster_pool.cluster.reaper import Reaper
from cluster_pool.cluster.reconciler import Reconciler
from cluster_pool.cluster.recordings import Recordings
from cluster_pool.cluster.rejoins import Rejoins
from cluster_pool.cluster.remote_joins import RemoteJoins
from cluster_pool.cluster.replies import Answers, Replies
from cluster_pool.cluster.revocations import RevocationReader
from cluster_pool.cluster.revoking import REVOKED, Revoking
from cluster_pool.cluster.rewinds import Rewinds
from cluster_pool.cluster.sending import Sending
from cluster_pool.cluster.shortcut import LocalShortcut
from cluster_pool.cluster.standing import Standing
from cluster_pool.cluster.takeover_fights import TakeoverFights
from cluster_pool.cluster.unsealing import unsealing_of
from cluster_pool.cluster.user_limit import UserLimit
from cluster_pool.cluster.watchers import Watchers
from cluster_pool.core.closing import SERVICE_RESTART
from cluster_pool.core.drain_budget import USED
from cluster_pool.core.results import Gap, NodeState
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.connection import Connection
from cluster_pool.local.outbox import begin_close
from cluster_pool.local.pool import ConnectionsPool
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool")

READY_SHARE: Final = 0.5
"""On a cluster: the part of its namespaces that a node must serve to be ready."""
LOOK: Final = 0.05
"""Seconds between two looks whether this node is ready, which also depends on a clock."""


class Node:
    """The parts of one start of a node; also the observer of its backplane, lease and table.

    Args:
        hooks: the handlers that users have registered; they outlive this start.
        headroom: connections per second that this node can accept, at most.
        takeover: whether a claim takes an id over if the call does not say.
        oldest: whether a user with too many connections loses the oldest one; else a newcomer is
            refused.

    Attributes:
        over: whether it was stopped; then it can only be read.
    """

    def __init__(
        self, setup: Setup, hooks: Hooks, *, headroom: float, takeover: bool, oldest: bool
    ) -> None:
        timing, counters = setup.timing, setup.counters
        self.over, self.setup, self.hooks = False, setup, hooks
        self.life = NodeLife(self._state_changed)
        self.backplane = backplane = Backplane(setup, self, holds=True)
        self.loop = backplane.loop
        shard, leases, identity = backplane.shard, backplane.leases, backplane.identity
        self.replies, self.watchers = Replies(identity), Watchers()
        self.expiries = Expiries(USED * headroom, counters)
        self.revocations = RevocationReader(backplane, counters, self._connections)
        self.table = table = self._table()
        self.local = ConnectionsPool(table=table)
        self.inbound = InboundChannel(backplane.topology, setup.keys, setup.limits)
        self.lease = lease = LeaseState(timing)
        most = setup.limits.user_connections if oldest else None
        self.user_limit = limit = UserLimit(backplane, most)
        self.accounts = Accounts(backplane, table)
        self.ownership = ownership = self._ownership(oldest=oldest)
        self.capacity = Capacity(headroom, self.life, counters)
        self.lease_keeper = LeaseKeeper(lease, shard, leases, identity, timing, counters, self)
        self.reaper, self.reconciler = self._repairs()
        self.drains = DrainController(backplane, self.life, table, ownership, lease, headroom)
        self.admission = Admission(backplane, self.life, table, ownership, hooks, limit, takeover)
        self.histories = HistoryReading(backplane)
        self.rewinds = Rewinds(backplane, table, self.histories, self.accounts, lease)
        rejoins = Rejoins(backplane, self.rewinds, self.accounts)
        self.joins = Joins(backplane, table, ownership, self.admission, rejoins)
        self.remote_joins = RemoteJoins(table, ownership, self.joins, hooks, timing)
        shortcut = LocalShortcut(self.life, table, lease, shard, backplane.outbound, self.accounts)
        self.sending = Sending(backplane, self.replies, shortcut)
        self.people = People(backplane, self.sending)
        self.directory = ClusterDirectory(backplane, self.watchers)
        self.orders = NodeOrders(backplane, self.replies, self.drains)
        self.revoking = Revoking(backplane, self.orders, self.revocations)
        self.dispatcher = self._dispatcher()

    def _table(self) -> ConnectionTable:
        return ConnectionTable(
            limits=self.setup.limits,
            timing=self.setup.timing,
            counters=self.setup.counters,
            on_closing=self._connection_closing,
            on_slow_consumer=partial(self.hooks.fire, "slow_consumer"),
            on_identity=self.revocations.check_identity,
            on_renewed=self._renewed,
            on_withdraw=self._withdraw,
            on_join=self._join,
            on_leave=lambda *arguments: self.joins.leave(*arguments),
            on_inform=self._inform,
            receipts=self.setup.receipts,
            loop=self.loop,
        )

    def _repairs(self) -> tuple[Reaper, Reconciler]:
        setup, backplane = self.setup, self.backplane
        topology, claims, lease = backplane.topology, backplane.claims, self.lease
        timing, counters = setup.timing, setup.counters
        upkeep = Upkeep(topology, setup.keys, backplane.identity, setup.histories)
        reaping = Reaping(topology, setup.keys, backplane.identity, upkeep)
        reaper = Reaper(
            lease,
            backplane.leases,
            claims,
            reaping,
            timing,
            counters,
            self.hooks.emptied,
            self.registered,
            self.table.departs_in,
            self.ownership.releases.remember,
        )
        return reaper, Reconciler(
            topology, claims, upkeep, reaping, self.ownership, lease, timing, counters
        )

    def _ownership(self, *, oldest: bool) -> Ownership:
        setup, backplane = self.setup, self.backplane
        limits = replace(setup.limits, user_connections=None) if oldest else setup.limits
        most = setup.limits.node_namespaces
        return Ownership(
            backplane.topology,
            backplane.leases,
            backplane.claims,
            Namespaces(backplane.topology, backplane.claims, setup.keys, setup.timing, most),
            self.table,
            limits,
            setup.timing,
            self.lease,
            TakeoverFights(setup.counters, partial(self.hooks.fire, "takeover")),
            Standing(backplane.outbound, self.replies, self.table, setup.timing),
            LastOnes(backplane.topology, backplane.claims, setup.timing),
            self.accounts,
            verify=setup.seals is not None,
        )

    def _dispatcher(self) -> Dispatcher:
        turn = Turn()
        recordings = Recordings(self.backplane.topology, self.table, self.ownership)
        unsealing = unsealing_of(self.backplane, recordings)
        delivery = Delivery(
            self.backplane,
            self.table,
            self.ownership,
            Answers(self.backplane.outbound, self.setup.timing),
            self.remote_joins,
            self.rewinds,
            self.accounts,
            {REVOKED: self.revocations.execute_order},
            self.drains.execute_order,
            unsealing,
            turn,
        )
        return Dispatcher(
            self.backplane, self.replies, self.watchers, unsealing, turn, delivery, self.lease
        )

    # -- start and stop --------------------------------------------------------------------

    async def start(self, wait: float | None) -> None:
        """Connect, take a lease, and accept newcomers."""
        self.life.become(NodeState.STARTING)
        self.dispatcher.start()
        await self.backplane.start(wait)
        await self.lease_keeper.start()
        await self.revocations.read()
        self.reaper.start()
        self.life.become(NodeState.ACTIVE)

    async def stop(self) -> None:
        """Close and release all connections, give up the lease, disconnect; no step is skipped."""
        shard, seconds = self.backplane.shard, self.setup.timing.timeout
        try:
            await in_turn(
                self.drains.stop,
                self.expiries.stop,
                self.revocations.stop,
                self._close_all,
                self.user_limit.stop,
                self.remote_joins.stop,
                self.table.stop,
                lambda: self.ownership.wait_released(seconds if shard.up else 0),
                self.accounts.stop,
                self.lease_keeper.stop,
                self.reaper.stop,
                self.reconciler.stop,
                self.ownership.stop,
                self._give_up,
                self.close,
            )
        finally:
            self.over = True

    async def _close_all(self) -> None:
        self.life.become(NodeState.STOPPED)
        for connection in self.table.connections():
            begin_close(connection, SERVICE_RESTART, "node is stopping")
        self.ownership.end()

    async def _give_up(self) -> None:
        if self.backplane.shard.up:
            with contextlib.suppress(BackplaneUnavailableError):
                await self.lease_keeper.give_up()
                await self.reaper.reap_own(self.backplane.identity.start)

    async def close(self) -> None:
        """Disconnect, without releasing anything; every call that waits for an answer fails."""
        await self.dispatcher.stop()
        self.replies.stop()
        self.watchers.stop()
        await in_turn(self.backplane.stop, self.rewinds.stop, self.hooks.stop)

    # -- state -----------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """See :attr:`ClusterPool.ready`."""
        shard = self.backplane.shard
        return (
            self.life.state is NodeState.ACTIVE
            and shard.up
            and not shard.outage.refused
            and self.lease.held
            and self.lease.settled
            and self.reconciler.clean
            and self._serves()
        )

    def _serves(self) -> bool:
        """Whether enough of its namespaces are at shards that are up and have its claims.

        A shard that is down is down for all nodes; a node that left the load balancer for it would
        take the members of all other shards with it.
        """
        topology = self.backplane.topology
        if not topology.spans:
            return True
        due, held = self.ownership.restoration.due, len(self.table.members)
        return topology.share_up >= READY_SHARE and due <= (1 - READY_SHARE) * held

    async def wait_ready(self) -> None:
        """Wait until :attr:`ready` is true; raises PoolClosedError when it is stopped."""
        while not self.ready:
            self.life.check_running()
            await asyncio.sleep(LOOK)

    def sizes(self) -> dict[str, Any]:
        """The part of :meth:`ClusterPool.statistics` that is not counters."""
        shard, inbox = self.backplane.shard, self.backplane.inbox
        return {
            "incarnation": self.lease.incarnation,
            "connections": len(self.table),
            "memberships": self.table.membership_count(),
            "namespaces": self.table.namespace_count(),
            "nodes": 0 if self.over else self.lease.living,
            "pending": self.backplane.outbound.pending,
            "drain": self.drains.progress(),
            "inbox_messages": len(inbox),
            "inbox_bytes": inbox.size,
            "inbound_bytes": self.inbound.size,
            **self.table.outboxes(),
            "redis_up": shard.up and not self.backplane.topology.outage.reason,
            "generation": shard.generation,
            **self.lease.ages(),
            "trouble": self.backplane.topology.outage.as_dict(),
        }

    # -- observer of its parts -------------------------------------------------------------

    def _state_changed(self, state: NodeState) -> None:
        self.hooks.fire("state", state)
        if state not in (NodeState.STARTING, NodeState.STOPPED):
            self.lease_keeper.wake()  # the cluster learns of it at once

    def _connections(self) -> list[Connection]:
        return self.table.connections()

    def _renewed(self, connection: Connection) -> None:
        self.expiries.watch(connection)
        self.revocations.recheck(connection)

    def _withdraw(self, connection: Connection, namespace: str) -> None:
        membership = self.table.membership_in(connection, namespace)
        if membership is not None and not membership.home:
            self.remote_joins.remove(membership)

    def _connection_closing(self, connection: Connection) -> None:
        """A connection of this node began to close, for any reason."""
        log.debug("leaves: %r, %s %s", connection, connection.close_code, connection.close_reason)
        self.expiries.forget(connection)
        for membership in self.table.memberships_of(connection):
            self.rewinds.forget(membership)
            self.ownership.release(membership)

    async def _join(self, *arguments: Any) -> bool | None:
        return await self.joins.join(*arguments)

    async def _inform(self, connection: Connection, namespace: str, timeout: float | None) -> None:
        await self.joins.inform(connection, namespace, timeout)

    def up(self) -> None:
        """See :class:`BackplaneObserver`: a new generation needs a new lease."""
        self.lease_keeper.wake()

    def down(self) -> None:
        """See :class:`BackplaneObserver`."""
        self.lease_keeper.wake()

    def part_up(self, shard: Shard) -> None:
        """See :class:`BackplaneObserver`."""
        self.ownership.shard_up(shard)
        self.accounts.renew()

    def part_down(self, shard: Shard) -> None:
        """See :class:`BackplaneObserver`: its claims are compared when it is up again."""

    def moved(self, slots: Collection[int]) -> None:
        """See :class:`BackplaneObserver`."""
        self.ownership.moved(slots)

    def gap(self, gap: Gap) -> None:
        """See :class:`BackplaneObserver`."""
        self.hooks.fire("gap", gap)

    def node_info(self) -> dict[str, object]:
        """See :class:`LeaseObserver`."""
        return {
            "state": self.life.state.value,
            "connections": len(self.table),
            "lease": self.setup.timing.lease,
        }

    def headroom(self) -> float | None:
        """See :class:`LeaseObserver`."""
        return self.capacity.headroom()

    async def register_all(self, incarnation: str, keep: Keep) -> None:
        """See :class:`LeaseObserver`."""
        await self.revocations.read_all(keep)
        await self.ownership.register_all(incarnation, keep)
        self.accounts.renew()

    def registered(self) -> bool:
        """See :class:`LeaseObserver`."""
        return not self.ownership.restoration.due

    def lease_renewed(self) -> None:
        """See :class:`LeaseObserver`: do the work of every heartbeat."""
        self.revocations.wake()
        self.ownership.tell_again()
        self.reaper.wake()
        self.reconciler.begin()

    def node_renamed(self) -> None:
        """See :class:`LeaseObserver`: the node has another own channel from now on."""
        self.backplane.topology.rename("this node goes on under another node id")
        self.hooks.fire("state", self.life.state)
