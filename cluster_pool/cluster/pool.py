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
    """Stands for a part of a node that does not run: whatever is asked of it raises."""

    def __getattr__(self, name: str) -> Any:
        raise PoolClosedError(NOT_RUNNING)


_NOT_RUNNING: Final[Any] = _NotRunning()


class ClusterPool(Handle[Node], SendingCalls, DirectoryCalls, DrainCalls):
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
            subtracted. 70 % of it, over all nodes, is what drains use when no rate is named.
        secret: at least 16 bytes that every node and publisher of the cluster knows: what they say
            to each other is then authenticated, and what strangers put into an envelope is
            refused and counted. Several: the first seals, each is accepted, so that a new one can
            be brought in node by node. A plain PUBLISH is no envelope and stays a message: who may
            publish is for Redis's ACL to say.
        origins: pages of these may connect by :meth:`accept`, besides those of the same origin (the
            header ``Host``, with its port): ``["https://app.example"]``; ``["*"]`` for all. None:
            the same origin alone. A client that sends no ``Origin`` is no page, and is let in.
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
        """Judges handshakes before anything is claimed for them."""
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
        """Join the cluster. ``async with`` does it too.

        It may be started again after a stop, also in another event loop. A call during another
        waits for the same start, one that is cancelled leaves nothing behind.

        Args:
            wait: seconds to go on trying while Redis cannot be reached; None tries once.

        Raises:
            BackplaneUnavailableError: Redis cannot be reached; the text names its address.
            PoolClosedError: :meth:`stop` was called before it was up.
            NodeIdTakenError: another live node has this node id. A crashed node's lease under
                the same id is waited for: four seconds, while no process listens to the channel of
                that node id, and at most as long as a lease lasts.
        """
        self.door.opened = True
        return await super().start(wait=wait)

    async def stop(self) -> None:
        """Leave the cluster: close what is left with 1012, release everything, disconnect.

        Nothing of this node stays in Redis if Redis can be reached; else its lease runs out.
        Harmless when called twice, and in the middle of a start, which then raises PoolClosedError.
        A cancelled call goes on by itself; another one waits for it.
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
                second that it is away, and then it does not wait; what may have been claimed
                (``maybe_executed``) is given up as soon as Redis can be reached.
        """
        await self._running().admission.join(connection, on_conflict, timeout)

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
            origins: pages of these may connect here, in place of the pool's own.

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
        """Whether this node has members in a namespace. From any thread, also before the start."""
        return self._parts is not None and self._parts.table.namespace(namespace) is not None

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
        node = self._running()
        deadline = node.backplane.deadline(None)
        node_id = node.backplane.identity.node_id
        return await node.inbound.publish(connection, node_id, message, deadline)

    # -- this node -------------------------------------------------------------------------

    @property
    def node_id(self) -> str:
        """This node's id: the one that was given; else made at each start, and "" before the first.

        A node that lost its id to another, while it was cut off from Redis, has a new one then:
        the ``state`` hook fires.
        """
        if self._parts is None:
            return self._setup.node_id or ""
        return self._parts.backplane.identity.node_id

    @property
    def state(self) -> NodeState:
        """Where this node stands in its life."""
        return NodeState.STOPPED if self._parts is None else self._parts.life.state

    @property
    def ready(self) -> bool:
        """Whether a load balancer should send newcomers: active, leased, and not deaf.

        False, too, while Redis refuses what this node must write (:attr:`trouble` says why), and
        while a comparison has found that what this node holds is registered wrongly, and has not
        repaired it yet.
        """
        return self._parts is not None and self._parts.ready

    async def wait_ready(self) -> None:
        """Wait until :attr:`ready` is true; for ever, if need be.

        Raises:
            PoolClosedError: not started, or stopped.
        """
        await self._running().wait_ready()

    @property
    def local(self) -> ConnectionsPool:
        """This node's connections alone; its calls raise PoolClosedError when this pool's do."""
        parts = self._parts
        return _NOT_RUNNING if parts is None or parts.over else parts.local

    @property
    def inbound(self) -> InboundChannel:
        """The inbound channels, and what clients sent and this node still holds.

        After a stop it is that of the last start, for handlers that end later than their pool.
        """
        parts = self._parts
        return _NOT_RUNNING if parts is None else parts.inbound

    def headroom(self) -> float | None:
        """Connections per second that this node can take now; None while it takes none."""
        return None if self._parts is None else self._parts.capacity.headroom()

    def free(self) -> float | None:
        """The share of its headroom that this node has left, 0 to 1; None while it takes none."""
        return None if self._parts is None else self._parts.capacity.free()

    def statistics(self) -> dict[str, Any]:
        """A snapshot of this node's counters and sizes. From any thread, also before the start.

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
            InvalidValueError: there is no such event; the text names those that there are.
        """
        self._hooks.check(event)
        if handler is None:
            return partial(self._hooks.add, event)
        return self._hooks.add(event, handler)
