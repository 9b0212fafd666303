"""The pool that users hold: this node's connections, as a part of the cluster."""

import asyncio
import contextlib
import inspect
import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any, Final, Self

from cluster_pool.backplane.upkeep import Upkeep
from cluster_pool.cluster.accept import Accepting
from cluster_pool.cluster.delivery import Delivery
from cluster_pool.cluster.dispatcher import Turn
from cluster_pool.cluster.door import Door
from cluster_pool.cluster.drain import DrainController
from cluster_pool.cluster.drainable import DrainingNode
from cluster_pool.cluster.hooks import Hooked
from cluster_pool.cluster.inbound import SHARE, InboundChannel
from cluster_pool.cluster.lease import LeaseState, boottime
from cluster_pool.cluster.lease_keeper import Keep, LeaseKeeper
from cluster_pool.cluster.life import in_turn
from cluster_pool.cluster.ownership import Ownership
from cluster_pool.cluster.reaper import Reaper
from cluster_pool.cluster.reconciler import Reconciler
from cluster_pool.cluster.recordings import Recordings
from cluster_pool.cluster.replies import Answers
from cluster_pool.cluster.sender import DEFAULT_REDIS, NOT_STARTED, started
from cluster_pool.cluster.standing import Standing
from cluster_pool.core.closing import NORMAL, SERVICE_RESTART, check_close
from cluster_pool.core.config import Limits, Timing, check_above_zero, check_on_conflict
from cluster_pool.core.ids import check_id, check_namespace, check_node_id
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.ledger import HEADROOM
from cluster_pool.core.message import Outgoing
from cluster_pool.core.pacing import ArrivalRate
from cluster_pool.core.results import NodeState, SendResult
from cluster_pool.core.seals import Secret
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    ClusterPoolError,
    NodeDrainingError,
    PoolClosedError,
)
from cluster_pool.local.connection import Connection
from cluster_pool.local.pool import ConnectionsPool
from cluster_pool.local.table import ConnectionTable
from cluster_pool.transports.base import Ahead

if TYPE_CHECKING:
    from redis.asyncio import Redis

log = logging.getLogger("cluster_pool")

EmptyCallback = Callable[[], Any]

NO_SIZES: Final = {
    "incarnation": "",
    "connections": 0,
    "namespaces": 0,
    "pending": 0,
    "drain": None,
    "inbox_bytes": 0,
    "inbound_bytes": 0,
    "generation": 0,
    "trouble": None,
}


class ClusterPool(DrainingNode, Hooked):
    """The connections of one node, sent to and counted together with those of all others.

    ``async with ClusterPool("redis://…") as pool:`` joins the cluster and leaves it. The methods of
    :class:`ConnectionsPool` are here under the same names, cluster-wide.

    Args:
        redis: a URL, or a ``redis.asyncio.Redis`` of which address, credentials and TLS are used.
        node_id: unique among live nodes, 1 to 256 bytes; None makes one.
        prefix: of every key and channel; clusters that share a Redis need different ones, also in
            different databases, for channels belong to no database. Hence the default prefix is
            refused with a database other than 0.
        on_conflict: ``"takeover"`` closes the older connection of an id with 4409, ``"reject"``
            raises IdTakenError for the newer one.
        limits, timing: see :class:`Limits` and :class:`Timing`.
        headroom: connections per second that this node can take; what it takes already is
            subtracted. 70 % of it, over all nodes, is what drains use when nobody names a rate.
        secret: at least 16 bytes that every node and publisher of the cluster knows: what they say
            to each other is then authenticated, and what strangers put into an envelope is
            refused and counted. Several: the first seals, each is accepted, so that a new one can
            be brought in node by node. A plain PUBLISH is no envelope and stays a message: who may
            publish is for Redis's ACL to say.
        origins: whose pages may connect by :meth:`accept`, besides those of the same origin (the
            header ``Host``, with its port): ``["https://app.example"]``; ``["*"]`` for all. None:
            the same origin alone. Who sends no ``Origin`` is no page, and may always.
    """

    _holds = True

    def __init__(
        self,
        redis: "str | Redis" = DEFAULT_REDIS,
        *,
        node_id: str | None = None,
        prefix: str = DEFAULT_PREFIX,
        on_conflict: str = "takeover",
        limits: Limits | None = None,
        timing: Timing | None = None,
        headroom: float = HEADROOM,
        secret: Secret | Iterable[Secret] | None = None,
        origins: Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            redis,
            None if node_id is None else check_node_id(node_id),
            prefix=prefix,
            limits=limits or Limits(),
            timing=timing or Timing(),
            counters=Counters(),
            secret=secret,
        )
        self.door = Door(origins, self.counters)
        """Judges handshakes before anything is claimed for them."""
        self._takeover = check_on_conflict(on_conflict)
        self._takes = check_above_zero("headroom", headroom)
        self._taken = ArrivalRate()
        unread = self.limits.node_inbound_bytes - self.limits.node_inbound_bytes // SHARE
        self._ahead = Ahead(self.limits.inbound_bytes, unread, self.timing.handler)
        self._state = NodeState.STOPPED
        self._table: ConnectionTable = NOT_STARTED
        self._ownership: Ownership = NOT_STARTED
        self._lease: LeaseState = NOT_STARTED
        self._lease_keeper: LeaseKeeper = NOT_STARTED
        self._reaper: Reaper = NOT_STARTED
        self._reconciler: Reconciler = NOT_STARTED
        self._drain_controller: DrainController = NOT_STARTED
        self.inbound: InboundChannel = NOT_STARTED
        """What clients sent and this node still holds; there from the start on."""
        self.local: ConnectionsPool = NOT_STARTED
        """This node's connections alone; its calls raise PoolClosedError when those of the pool do.
        """

    # -- lifetime --------------------------------------------------------------------------

    async def start(self, *, wait: float | None = None) -> Self:
        """Join the cluster. ``async with`` does it too.

        It may be started again after a stop, also in another event loop. A call during another
        waits for the same start, one that is cancelled leaves nothing behind.

        Args:
            wait: seconds to go on trying while Redis cannot be reached; None tries once.

        Raises:
            BackplaneUnavailableError: Redis cannot be reached; the text names its address.
            PoolClosedError: :meth:`stop` was called before it was up.
            NodeIdTakenError: another live node has this node id. A crashed node's lease under
                the same id is waited for: four seconds, while nobody listens to the channel of that
                node id, and at most as long as a lease lasts.
        """
        return await super().start(wait=wait)

    async def _connect(self, wait: float | None) -> None:
        self._become(NodeState.STARTING)
        await super()._connect(wait)
        await self._lease_keeper.start()
        self._reaper.start()
        self._become(NodeState.ACTIVE)

    def _assemble(self) -> None:
        super()._assemble()
        self._table = ConnectionTable(
            limits=self.limits,
            timing=self.timing,
            counters=self.counters,
            on_departing=self._departing,
            on_slow_consumer=lambda connection: self._hooks.fire("slow_consumer", connection),
            loop=self._loop,
        )
        self.local = ConnectionsPool(table=self._table)
        self.inbound = InboundChannel(self._shard, self._keys, self.limits)
        self._lease = LeaseState(self.timing)
        self._ownership = Ownership(
            self._shard,
            self._registry,
            self._keys,
            self._table,
            self.limits,
            self.timing,
            self.counters,
            self._lease,
            lambda connection: self._hooks.fire("takeover", connection),
            Standing(self._outbound, self._replies, self._table, self.timing),
            verify=self._seals is not None,
        )
        self._lease_keeper = LeaseKeeper(
            self._lease,
            self._shard,
            self._registry,
            self._identity,
            self.timing,
            self.counters,
            _LeaseObserver(self),
        )
        upkeep = Upkeep(self._shard, self._keys, self._identity)
        self._reaper = Reaper(
            self._registry,
            upkeep,
            self.timing,
            self.counters,
            self._may_judge,
            lambda namespace: self._hooks.fire("empty", namespace),
        )
        self._reconciler = Reconciler(
            self._shard,
            self._registry,
            upkeep,
            self._ownership,
            self._lease,
            self.timing,
            self.counters,
        )
        self._drain_controller = DrainController(
            self._identity,
            self._ledger,
            self._table,
            self._ownership,
            self._lease,
            self.timing,
            self._takes,
            self.limits.message_bytes,
            lambda: self._state,
            self._become,
        )
        turn = Turn()
        unsealing = self._unsealing(Recordings(self._shard, self._table, self._ownership))
        delivery = Delivery(
            self._identity,
            self._keys,
            self.counters,
            self._table,
            self._ownership,
            self._lease,
            Answers(self._outbound, self.timing),
            self._drain_controller.execute_order,
            unsealing,
            turn,
        )
        self._dispatcher = self._dispatcher_to(turn, unsealing, delivery)

    async def stop(self) -> None:
        """Leave the cluster: close what is left with 1012, release everything, disconnect.

        Nothing of this node stays in Redis if Redis can be reached; else its lease runs out.
        Harmless when called twice, and in the middle of a start, which then raises PoolClosedError.
        A cancelled call goes on by itself; another one waits for it.
        """
        await super().stop()

    async def _end(self) -> None:
        try:
            await in_turn(
                self._drain_controller.stop,
                self._leave,
                self._table.stop,
                self._lease_keeper.stop,
                self._reaper.stop,
                self._reconciler.stop,
                self._ownership.stop,
                self._give_up,
                self._close,
            )
        finally:
            self.local = NOT_STARTED

    async def _leave(self) -> None:
        self._become(NodeState.STOPPED)
        for connection in self._table.connections():
            connection.begin_close(SERVICE_RESTART, "node is stopping")
        if self._shard.up:
            await self._ownership.leave(self.timing.timeout)

    async def _give_up(self) -> None:
        if self._shard.up:
            with contextlib.suppress(BackplaneUnavailableError):
                await self._lease_keeper.give_up()
                await self._reaper.reap_own(self._shard.start_name)

    @property
    def node_id(self) -> str:
        """This node's id: the one that was given; else made at each start, and "" before the first.

        A node that lost its id to another, while it was cut off from Redis, has a new one then:
        the ``state`` hook fires.
        """
        return self._identity.node_id if started(self._identity) else self._given_id or ""

    @property
    def state(self) -> NodeState:
        """Where this node stands in its life."""
        return self._state

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send newcomers: active, leased, and not deaf.

        False, too, while Redis refuses what this node must write (:attr:`trouble` says why), and
        while a comparison has found that what this node holds is registered wrongly, and has not
        repaired it yet.
        """
        return (
            self._state is NodeState.ACTIVE
            and self._shard.up
            and not self._shard.outage.refused
            and self._lease.held
            and self._lease.settled
            and self._reconciler.clean
        )

    async def wait_ready(self) -> None:
        """Wait until :attr:`ready` is true; for ever, if need be.

        Raises:
            PoolClosedError: not started, or stopped.
        """
        self._own_loop()
        while not self.ready:  # readiness depends on a clock, too
            if self._state is NodeState.STOPPED:
                raise PoolClosedError("not started, or stopped")
            await asyncio.sleep(0.05)

    def _become(self, state: NodeState) -> None:
        self._state = state
        self._hooks.fire("state", state)
        if state not in (NodeState.STARTING, NodeState.STOPPED):
            self._lease_keeper.wake()  # the cluster learns of it at once

    def _went_up(self) -> None:
        super()._went_up()
        self._lease_keeper.wake()

    def _went_down(self) -> None:
        self._lease_keeper.wake()

    def _renamed(self) -> None:
        """This node has another node id: its own channel is another, too."""
        self._shard.begin_anew("this node goes on under another node id")
        self._hooks.fire("state", self._state)

    def _info(self) -> dict[str, object]:
        return {
            "state": self._state.value,
            "connections": len(self._table),
            "lease": self.timing.lease,
        }

    def headroom(self) -> float | None:
        """Connections per second that this node can take now; None while it takes nobody."""
        if self._state not in (NodeState.STARTING, NodeState.ACTIVE):
            return None
        taking = self._taken.rate(self.counters.accepted, boottime())
        return max(0.0, self._takes - taking)

    def free(self) -> float | None:
        """The share of its headroom that this node has left, 0 to 1; None while it takes nobody."""
        headroom = self.headroom() if self._state is NodeState.ACTIVE else None
        return None if headroom is None else headroom / self._takes

    def _beaten(self) -> None:
        """The lease was renewed: time for what is done at every heartbeat."""
        self._ownership.retry_releases()
        self._reaper.wake()
        self._reconciler.begin()

    def _may_judge(self) -> bool:
        return boottime() - self._lease.held_since >= self.timing.lease

    # -- connections -----------------------------------------------------------------------

    async def new_connection(
        self,
        connection: Connection,
        *,
        on_conflict: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Make a connection a member: claim its id for this node.

        When this returns, sends from anywhere reach it. Cancelling gives the claim up again.

        Args:
            on_conflict: ``"takeover"`` or ``"reject"`` for this call alone.
            timeout: seconds; default 2.

        Raises:
            NodeDrainingError: this node takes no newcomers.
            IdTakenError: under ``"reject"``, the id is taken.
            ConnectionClosedError: a newer connection took the id over at once (4409: this one is
                closed), or the connection is closed, or its client has gone.
            MembershipLimitError: the namespace or this node is full.
            BackplaneUnavailableError: Redis did not say in time, or this node has known for a
                second that it is away, and then nobody waits; what may have been claimed
                (``maybe_executed``) is given up as soon as Redis can be reached.
        """
        deadline = self._deadline(timeout)
        takeover = self._takeover if on_conflict is None else check_on_conflict(on_conflict)
        try:
            self._check_open()
            await self._claim(connection, takeover, deadline)
        except BaseException as error:
            log.debug("refused: %r: %r", connection, error)
            raise
        log.debug("joined: %r", connection)

    async def _claim(self, connection: Connection, takeover: bool, deadline: float) -> None:
        if connection.claim is not None:
            raise ClusterPoolError(f"{connection!r} is a member already")
        connection.attach(self._table)
        try:
            await self._ownership.claim(connection, takeover=takeover, deadline=deadline)
        except BaseException:
            connection.detach()
            raise

    async def remove_connection(
        self,
        connection: Connection,
        on_empty_namespace: EmptyCallback | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """Give up a connection's membership. Does not close it. Harmless when called twice.

        Args:
            on_empty_namespace: called without arguments, and awaited if it is async, when this
                release left the namespace without members in the whole cluster. It fires once,
                also when the release had to be retried, up to a day later; after a crash in
                between it may not.
            timeout: seconds to wait for Redis; default 2.

        Raises:
            BackplaneUnavailableError: not released yet. It will be, and the callback called, as
                soon as Redis can be reached.
        """
        deadline = self._deadline(timeout)
        if connection.departure is None and connection.claim is None:
            return
        departure = self._ownership.release(connection)
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.shield(departure)
        except TimeoutError:
            if on_empty_namespace is not None:
                departure.add_done_callback(
                    lambda done: self._emptied_late(connection, on_empty_namespace)
                )
            raise self._shard.outage.error("not released yet", maybe_executed=True) from None
        if on_empty_namespace is not None and self._take_emptied(connection):
            result = on_empty_namespace()
            if inspect.isawaitable(result):
                await result

    def _take_emptied(self, connection: Connection) -> bool:
        """Whether this connection's release emptied its namespace; true for the first to ask."""
        departure = connection.departure
        if departure is None or departure.cancelled() or departure.exception():
            return False
        if not departure.result():
            return False
        connection.departure = asyncio.get_running_loop().create_future()
        connection.departure.set_result(False)
        return True

    def _emptied_late(self, connection: Connection, callback: EmptyCallback) -> None:
        if self._take_emptied(connection):
            self._hooks.call("empty", callback)

    def accept(
        self,
        websocket: Any,
        *,
        namespace: str,
        id: str | None = None,
        on_conflict: str | None = None,
        subprotocol: str | None = None,
        idle_timeout: float | None = None,
        metadata: dict[str, Any] | None = None,
        origins: Sequence[str] | None = None,
    ) -> AbstractAsyncContextManager[Connection, bool]:
        """Claim, accept the WebSocket where that is left to us, and release at the end.

        ``async with pool.accept(websocket, namespace="room", id="alice") as connection:
        await connection.run()``. What is sent to the member between claim and accept waits in its
        outbox. At the end the connection is closed (1000, or 1011 after an exception) behind what
        was sent to it, for which its client has ``Timing.close`` seconds.

        A client that leaves is a member no longer at once, whatever the body does, and the body
        ends: an iteration by itself, behind what had come; a ``send`` of it by
        ``ConnectionClosedError``; a body that waits for something else is cancelled. That is at
        once, but ``Timing.close`` later if something that came has not been read by then, and
        ``Timing.handler`` later if another task reads, or the WebSocket is read by its own
        library's means. The context swallows both, and no other cancellation: what stands behind
        it runs. Never cancelled is a body that works on what its iteration gave, or whose
        iteration has come to its end, or that has closed the connection itself. A connection that
        is taken over, closed by a pool or cut ends its body in the same ways.

        What nobody reads is kept, ``Limits.inbound_bytes`` for each, and what comes further is
        dropped (``inbound_dropped``). Behind a body that has read TCP holds its client up, and
        its departure is not seen, for ``Timing.handler`` seconds without a read.

        Args:
            id: None makes one that no other has.
            subprotocol: to accept, for frameworks that ask; one that the client has offered.
            origins: whose pages may connect here, in place of the pool's own.

        Raises:
            OriginRefusedError, InvalidValueError: a page of a foreign origin; offers that cannot be
                answered, or a value that is not allowed. Nothing was claimed.
            As :meth:`new_connection`. A WebSocket that is not accepted yet is then refused with 400
                (a value that is not allowed), 403 (a foreign origin), 409 (taken) or 503 and
                Retry-After, where the framework's server can say that; one that is open is closed
                with 1008, 4409 or 1013. One whose id a newer connection took over at once is
                accepted and closed with 4409. Under Starlette and FastAPI the error is starlette's
                HTTPException, too, which they log no traceback of; anywhere else the endpoint
                catches ClusterPoolError.
            TypeError: ``websocket`` is none.
        """
        return Accepting(
            self,
            websocket,
            self._ahead,
            namespace=namespace,
            id=id,
            on_conflict=on_conflict,
            subprotocol=subprotocol,
            idle_timeout=idle_timeout,
            metadata=metadata,
            origins=origins,
        )

    def _departing(self, connection: Connection) -> None:
        """A connection of this node began to close, for whatever reason."""
        log.debug("leaves: %r, %s %s", connection, connection.close_code, connection.close_reason)
        self._ownership.release(connection)

    def _check_open(self) -> None:
        if self._state in (NodeState.DRAINING, NodeState.DRAINED):
            raise NodeDrainingError(f"node {self.node_id} is {self._state.value}")
        if self._state not in (NodeState.ACTIVE, NodeState.ANNOUNCING):
            raise PoolClosedError(f"node {self.node_id} is {self._state.value}")

    # -- what this node can do alone -------------------------------------------------------

    def get_connection(self, namespace: str, id: str) -> Connection | None:
        """This node's connection with an id, or None.

        Raises:
            PoolClosedError: not started, or stopped.
        """
        if self._state is NodeState.STOPPED:
            raise PoolClosedError("not started, or stopped")
        return self._table.get(namespace, id)

    def has_namespace(self, namespace: str) -> bool:
        """Whether this node has members in a namespace. From any thread, also before the start."""
        return started(self._table) and self._table.namespace(namespace) is not None

    def statistics(self) -> dict[str, Any]:
        """A snapshot of this node's counters and sizes. From any thread, also before the start.

        ``trouble`` is None, or why Redis does not serve this node: ``reason`` in a sentence,
        ``since`` (ISO 8601), ``seconds``, ``next_attempt_in`` (seconds).
        """
        return {
            "node": self.node_id,
            "state": self._state.value,
            "ready": self.ready,
            "authenticated": self._seals is not None,
            **(self._sizes() if started(self._table) else NO_SIZES),
            **self.counters.as_dict(),
        }

    def _sizes(self) -> dict[str, Any]:
        return {
            "incarnation": self._lease.incarnation,
            "connections": len(self._table),
            "namespaces": len(self._table.namespaces()),
            "pending": self._outbound.pending,
            "drain": self._drain_controller.progress(),
            "inbox_bytes": self._shard.receiver.inbox.size,
            "inbound_bytes": self.inbound.size,
            "generation": self._shard.generation,
            "trouble": self._shard.outage.as_dict(),
        }

    def _deliver_here(
        self, namespace: str, id: str, text: bool, payload: bytes, close: tuple[int, str] | None
    ) -> SendResult | None:
        """Straight to a connection of this node, when that cannot overtake anything."""
        connection = self._local(namespace, id)
        if connection is None:
            return None
        result = connection.deliver(Outgoing(text, payload))
        if close is not None and result:
            connection.kick(*close)
        return result

    async def close(
        self,
        namespace: str,
        id: str,
        code: int = NORMAL,
        reason: str = "",
        *,
        confirm: bool = False,
        timeout: float | None = None,
    ) -> SendResult:
        """Close one member's connection, wherever it is; as :meth:`Publisher.close`."""
        self._deadline(timeout)
        namespace, id = check_namespace(namespace), check_id(id)
        connection = self._local(namespace, id)
        if connection is None:
            return await super().close(
                namespace, id, code, reason, confirm=confirm, timeout=timeout
            )
        connection.kick(*check_close(code, reason))
        return SendResult.DELIVERED

    def _local(self, namespace: str, id: str) -> Connection | None:
        """The connection here that may be sent to without asking Redis.

        A node that slept past its lease may have lost the id; one that knows that Redis is away
        goes on serving whom it has.
        """
        if self._state is NodeState.STOPPED:
            raise PoolClosedError("not started, or stopped")
        connection = self._table.get(namespace, id)
        if connection is None or self._table.namespace_busy(namespace):
            return None
        if self._shard.up and not self._lease.unbroken:
            return None
        return connection if self._outbound.quiet(namespace) else None

    async def publish_inbound(self, connection: Connection, message: str | bytes) -> int:
        """Publish what a client sent to the inbound channel of its namespace.

        The payload is JSON: ``{"id", "node", "text"}`` or ``{"id", "node", "binary": base64}``.

        Returns:
            How many subscribers heard it.

        Raises:
            InvalidMessageError, MessageTooLargeError: not allowed.
            PendingLimitError: too much waits for Redis already: half of
                ``Limits.node_inbound_bytes`` (a message being published takes three times its
                size), or ``Limits.pending_messages``.
            BackplaneUnavailableError: Redis did not answer in time.
        """
        deadline = self._deadline(None)
        return await self.inbound.publish(connection, self.node_id, message, deadline)


class _LeaseObserver:
    """A pool, as its lease sees it: see :class:`LeaseObserver`."""

    def __init__(self, pool: ClusterPool) -> None:
        self._pool = pool

    def node_info(self) -> dict[str, object]:
        return self._pool._info()

    def headroom(self) -> float | None:
        return self._pool.headroom()

    async def register_all(self, incarnation: str, keep: Keep) -> None:
        await self._pool._ownership.register_all(incarnation, keep)

    def lease_renewed(self) -> None:
        self._pool._beaten()

    def node_renamed(self) -> None:
        self._pool._renamed()
