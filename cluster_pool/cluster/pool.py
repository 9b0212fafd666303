"""The pool that users hold: this node's connections, as a part of the cluster."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Any, Final, Literal, Self, overload

from cluster_pool.backplane.backplane import DEFAULT_REDIS, Setup
from cluster_pool.backplane.locations import RedisOrUrl
from cluster_pool.cluster.accept import Accepting
from cluster_pool.cluster.door import Door
from cluster_pool.cluster.hooks import Hooks, OnConnection, OnEmpty, OnGap, OnState
from cluster_pool.cluster.inbound import SHARE, InboundChannel
from cluster_pool.cluster.node import NO_SIZES, Node
from cluster_pool.cluster.public.directory import DirectoryCalls
from cluster_pool.cluster.public.drains import DrainCalls
from cluster_pool.cluster.public.handle import NOT_RUNNING, Handle
from cluster_pool.cluster.public.sending import SendingCalls
from cluster_pool.core.config import Limits, Timing, check_above_zero, check_on_conflict
from cluster_pool.core.drain_budget import HEADROOM
from cluster_pool.core.ids import check_node_id
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.results import NodeState
from cluster_pool.core.seals import Secret
from cluster_pool.exceptions import PoolClosedError
from cluster_pool.local.connection import Connection
from cluster_pool.local.pool import ConnectionsPool
from cluster_pool.local.protocol import EmptyCallback
from cluster_pool.transports.base import Ahead


class _NotRunning:
    """In place of a part of a node that does not run: every attribute raises PoolClosedError."""

    def __getattr__(self, name: str) -> Any:
        raise PoolClosedError(NOT_RUNNING)


_NOT_RUNNING: Final[Any] = _NotRunning()


class ClusterPool(Handle[Node], SendingCalls, DirectoryCalls, DrainCalls):
    """The connections of one node, as a part of all connections in the cluster.

    ``async with ClusterPool("redis://…") as pool:`` joins the cluster and leaves it. It has the
    methods of :class:`ConnectionsPool` under the same names, cluster-wide.

    Args:
        redis: a URL (``redis://``, ``redis+sentinel://``, ``redis+cluster://`` and so on; see
            docs/deploying.md), or a client of ``redis.asyncio``, whose address, credentials and TLS
            are used: ``Redis``, Sentinel's ``master_for(…)``, or ``RedisCluster``.
        node_id: unique among live nodes, 1 to 256 bytes; None makes one.
        prefix: of every key and channel. Clusters that share a Redis need different prefixes, also
            in different databases, since channels belong to no database. Therefore the default
            prefix is refused with a database other than 0.
        on_conflict: ``"takeover"`` closes the older connection of an id with 4409, ``"reject"``
            raises IdTakenError for the newer one.
        limits, timing: see :class:`Limits` and :class:`Timing`.
        headroom: connections per second that this node can accept; its present arrivals are
            subtracted. Drains use 70 % of the headroom of all nodes if no rate is named.
        secret: at least 16 bytes, known to every node and publisher of the cluster. Messages
            between them are then authenticated, and forged envelopes are refused and counted. With
            several secrets the first one seals and each is accepted, so that a new one can be
            introduced node by node. A plain PUBLISH is no envelope and stays a message: restrict
            it by Redis's ACL.
        origins: origins of pages that may connect by :meth:`accept`, besides the same origin (the
            header ``Host``, with its port): ``["https://app.example"]``; ``["*"]`` for all. None
            allows the same origin only. A client without an ``Origin`` is no page, and is allowed.
    """

    def __init__(
        self,
        redis: RedisOrUrl = DEFAULT_REDIS,
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
        setup = Setup.of(
            redis,
            prefix=prefix,
            limits=limits,
            timing=timing or Timing(),
            secret=secret,
            node_id=None if node_id is None else check_node_id(node_id),
        )
        self.door = Door(origins, setup.counters)
        """Checks handshakes before anything is claimed for them."""
        self._hooks = Hooks(setup.timing, setup.counters)
        build = partial(
            Node,
            setup,
            self._hooks,
            headroom=check_above_zero("headroom", headroom),
            takeover=check_on_conflict(on_conflict),
        )
        super().__init__(setup, build)
        unread = self.limits.node_inbound_bytes - self.limits.node_inbound_bytes // SHARE
        self._ahead = Ahead(self.limits.inbound_bytes, unread, self.timing.handler)

    async def start(self, *, wait: float | None = None) -> Self:
        """Join the cluster. ``async with`` does it, too.

        It may be started again after a stop, also in another event loop. A second call waits for
        the same start; a cancelled call undoes it.

        Args:
            wait: seconds to go on trying while Redis cannot be reached; None tries once.

        Raises:
            BackplaneUnavailableError: Redis cannot be reached; the text names its address.
            PoolClosedError: :meth:`stop` was called before it was up.
            NodeIdTakenError: another live node has this node id. If a crashed node has left a
                lease under this id, the start waits: four seconds, if no process is subscribed to
                the channel of the id, and at most until that lease ends.
        """
        self.door.opened = True
        return await super().start(wait=wait)

    async def stop(self) -> None:
        """Leave the cluster: close the remaining connections with 1012, release all, disconnect.

        Nothing of this node stays in Redis if Redis can be reached; else its lease expires. It may
        be called twice, and during a start, which then raises PoolClosedError. If this call is
        cancelled, the stop goes on; another call waits for it.
        """
        await super().stop()

    # -- connections -----------------------------------------------------------------------

    async def new_connection(
        self,
        connection: Connection,
        *,
        on_conflict: str | None = None,
        timeout: float | None = None,
    ) -> None:
        """Make a connection a member: claim its id for this node.

        When this returns, sends from anywhere reach it. Cancelling releases the claim again.

        Args:
            on_conflict: ``"takeover"`` or ``"reject"`` for this call only.
            timeout: seconds; default 2.

        Raises:
            NodeDrainingError: this node accepts no newcomers.
            IdTakenError: under ``"reject"``, the id is taken.
            ConnectionClosedError: a newer connection took the id over at once (4409: this one is
                closed), or the connection is closed, or its client has gone.
            MembershipLimitError: the namespace or this node is full.
            BackplaneUnavailableError: Redis did not answer in time, or has been away for a second
                already, and then this does not wait. A claim that may have been made
                (``maybe_executed``) is released as soon as Redis can be reached.
        """
        await self._running().admission.join(connection, on_conflict, timeout)

    async def remove_connection(
        self,
        connection: Connection,
        on_empty_namespace: EmptyCallback | None = None,
        *,
        timeout: float | None = None,
    ) -> None:
        """End a connection's membership. Does not close it. A second call does nothing.

        Args:
            on_empty_namespace: called without arguments, and awaited if it is async, when this
                release left the namespace without members in the whole cluster. It is called once,
                even if the release had to be retried, up to a day later; after a crash in between
                perhaps not at all.
            timeout: seconds to wait for Redis; default 2.

        Raises:
            BackplaneUnavailableError: not released yet. It will be released, and the callback
                called, as soon as Redis can be reached.
        """
        await self._started().admission.leave(connection, on_empty_namespace, timeout)

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
        """Claim, accept the WebSocket if the framework has not done it, and release at the end.

        ``async with pool.accept(websocket, namespace="room", id="alice") as connection:
        await connection.run()``. Messages to the member between claim and accept wait in its
        outbox. At the end the connection is closed (1000, or 1011 after an exception) behind the
        messages sent to it; the client has ``Timing.close`` seconds for that.

        When the client leaves, its membership ends at once, whatever the body does, and the body
        ends: an iteration ends by itself, after all messages that had come; a ``send`` raises
        ``ConnectionClosedError``; a body that waits for something else is cancelled. It is
        cancelled at once, but ``Timing.close`` later if there are unread messages, and
        ``Timing.handler`` later if another task reads, or the WebSocket is read by its own
        library's methods. The context manager swallows this error and this cancellation, and no
        other: the code behind it runs. A body is never cancelled while it works on a message of its
        iteration, after its iteration has ended, or if it has closed the connection itself. A
        connection that is taken over, closed by a pool or cut ends its body in the same ways.

        If the body does not read, up to ``Limits.inbound_bytes`` of messages are kept, and further
        ones are dropped (``inbound_dropped``). If it has read before, TCP holds the client up
        instead, and that the client leaves is noticed only after ``Timing.handler`` seconds
        without a read.

        Args:
            id: None makes a unique one.
            subprotocol: the one to accept, which the client must have offered.
            origins: allowed origins for this call, in place of the pool's own.

        Raises:
            OriginRefusedError, InvalidValueError: the origin is foreign, the offers of the client
                cannot be answered, or a value is not allowed. Nothing was claimed.
            As :meth:`new_connection`. A WebSocket that is not accepted yet is then refused with 400
                (a value is not allowed), 403 (foreign origin), 409 (taken) or 503 and Retry-After,
                if the framework's server can do that; an open one is closed with 1008, 4409 or
                1013. If a newer connection took over the id at once, it is accepted and closed
                with 4409. Under Starlette and FastAPI the error is also starlette's HTTPException,
                so that they log no traceback; under others the endpoint must catch
                ClusterPoolError.
            TypeError: ``websocket`` is of no supported type.
        """
        return Accepting(
            websocket,
            self._running,
            self.door,
            self._ahead,
            namespace=namespace,
            id=id,
            on_conflict=on_conflict,
            subprotocol=subprotocol,
            idle_timeout=idle_timeout,
            metadata=metadata,
            origins=origins,
        )

    def get_connection(self, namespace: str, id: str) -> Connection | None:
        """This node's connection with an id, or None.

        Raises:
            PoolClosedError: not started, or stopped.
        """
        if self._parts is None:
            raise PoolClosedError(NOT_RUNNING)
        self._parts.life.check_running()
        return self._parts.local.get_connection(namespace, id)

    def has_namespace(self, namespace: str) -> bool:
        """Whether this node has members in a namespace. For any thread, also before the start."""
        return self._parts is not None and self._parts.table.namespace(namespace) is not None

    async def publish_inbound(self, connection: Connection, message: str | bytes) -> int:
        """Publish a message of a client to the inbound channel of its namespace.

        The payload is JSON: ``{"id", "node", "text"}`` or ``{"id", "node", "binary": base64}``.

        Returns:
            How many subscribers heard it.

        Raises:
            InvalidMessageError, MessageTooLargeError: not allowed.
            PendingLimitError: too much waits for Redis already: half of
                ``Limits.node_inbound_bytes`` (a message counts three times while it is published),
                or ``Limits.pending_messages``.
            BackplaneUnavailableError: Redis did not answer in time.
        """
        node = self._running()
        deadline = node.backplane.deadline(None)
        node_id = node.backplane.identity.node_id
        return await node.inbound.publish(connection, node_id, message, deadline)

    # -- this node -------------------------------------------------------------------------

    @property
    def node_id(self) -> str:
        """This node's id: the given one; else made at each start, and "" before the first.

        If another node took the id while this one was cut off from Redis, this one has a new id
        afterwards, and the ``state`` hook fires.
        """
        if self._parts is None:
            return self._setup.node_id or ""
        return self._parts.backplane.identity.node_id

    @property
    def state(self) -> NodeState:
        """The state of this node."""
        return NodeState.STOPPED if self._parts is None else self._parts.life.state

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send newcomers: active, with a lease, and subscribed.

        It is also False while Redis refuses this node's writes (:attr:`trouble` says why), and
        while members of this node are known to be registered wrongly and are not repaired yet.
        """
        return self._parts is not None and self._parts.ready

    async def wait_ready(self) -> None:
        """Wait until :attr:`ready` is true, without a time-out.

        Raises:
            PoolClosedError: not started, or stopped.
        """
        await self._running().wait_ready()

    @property
    def local(self) -> ConnectionsPool:
        """This node's connections only; its calls raise PoolClosedError when this pool's do."""
        parts = self._parts
        return _NOT_RUNNING if parts is None or parts.over else parts.local

    @property
    def inbound(self) -> InboundChannel:
        """The inbound channels, with the messages of clients that this node still holds.

        After a stop it is the one of the last start, for handlers that end later than their pool.
        """
        parts = self._parts
        return _NOT_RUNNING if parts is None else parts.inbound

    def headroom(self) -> float | None:
        """Connections per second that this node can accept now; None while it accepts none."""
        return None if self._parts is None else self._parts.capacity.headroom()

    def free(self) -> float | None:
        """The share of this node's headroom that is left, 0 to 1; None while it accepts none."""
        return None if self._parts is None else self._parts.capacity.free()

    def statistics(self) -> dict[str, Any]:
        """A snapshot of this node's counters and sizes. For any thread, also before the start.

        ``trouble`` is None, or why Redis does not serve this node: ``reason`` in a sentence,
        ``since`` (ISO 8601), ``seconds``, ``next_attempt_in`` (seconds).
        """
        return {
            "node": self.node_id,
            "state": self.state.value,
            "ready": self.ready,
            "authenticated": self._setup.seals is not None,
            **(NO_SIZES if self._parts is None else self._parts.sizes()),
            **self.counters.as_dict(),
        }

    @overload
    def on(self, event: Literal["gap"]) -> Callable[[OnGap], OnGap]: ...
    @overload
    def on(
        self, event: Literal["takeover", "slow_consumer"]
    ) -> Callable[[OnConnection], OnConnection]: ...
    @overload
    def on(self, event: Literal["state"]) -> Callable[[OnState], OnState]: ...
    @overload
    def on(self, event: Literal["empty"]) -> Callable[[OnEmpty], OnEmpty]: ...
    @overload
    def on(self, event: Literal["gap"], handler: OnGap) -> OnGap: ...
    @overload
    def on(
        self, event: Literal["takeover", "slow_consumer"], handler: OnConnection
    ) -> OnConnection: ...
    @overload
    def on(self, event: Literal["state"], handler: OnState) -> OnState: ...
    @overload
    def on(self, event: Literal["empty"], handler: OnEmpty) -> OnEmpty: ...
    def on(self, event: str, handler: Callable[..., Any] | None = None) -> Any:
        """Call ``handler``, sync or async, when something happens to this node.

        It may be called in any thread, and before the start. Also a decorator: ``@pool.on("gap")``.

        Args:
            event: ``gap(Gap)`` messages may have been missed; ``takeover(connection)`` a connection
                of this node lost its id; ``slow_consumer(connection)`` one was closed with 1013;
                ``state(NodeState)`` this node changed its state, or its node id;
                ``empty(namespace)`` reaping a vanished node's members emptied a namespace.

        Raises:
            InvalidValueError: there is no such event; the text names the events.
        """
        self._hooks.check(event)
        if handler is None:
            return partial(self._hooks.add, event)
        return self._hooks.add(event, handler)
