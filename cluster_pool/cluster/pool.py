"""The pool that users hold: this node's connections, as a part of the cluster."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

from cluster_pool.auth.auth import Auth
from cluster_pool.backplane.backplane import DEFAULT_REDIS, Setup
from cluster_pool.backplane.locations import RedisOrUrl
from cluster_pool.cluster.door import Door
from cluster_pool.cluster.hooks import Hooks, OnConnection, OnEmpty, OnGap, OnState
from cluster_pool.cluster.inbound import SHARE, InboundChannel
from cluster_pool.cluster.node import Node
from cluster_pool.cluster.operations import Operations
from cluster_pool.cluster.process import process
from cluster_pool.cluster.public.connections import ConnectionCalls
from cluster_pool.cluster.public.directory import DirectoryCalls
from cluster_pool.cluster.public.drains import DrainCalls
from cluster_pool.cluster.public.handle import NOT_RUNNING, Handle
from cluster_pool.cluster.public.memberships import MembershipCalls
from cluster_pool.cluster.public.people import PeopleCalls
from cluster_pool.cluster.public.revoking import RevokingCalls
from cluster_pool.cluster.public.sending import SendingCalls
from cluster_pool.cluster.stopping import Stopping
from cluster_pool.core.config import (
    Limits,
    Timing,
    check_above_zero,
    check_on_conflict,
    check_on_user_limit,
)
from cluster_pool.core.drain_budget import HEADROOM
from cluster_pool.core.history import History
from cluster_pool.core.ids import check_node_id
from cluster_pool.core.keys import DEFAULT_PREFIX
from cluster_pool.core.results import NodeState
from cluster_pool.core.seals import Secret
from cluster_pool.core.statistics import NO_SIZES
from cluster_pool.exceptions import PoolClosedError
from cluster_pool.local.pool import ConnectionsPool
from cluster_pool.transports.base import Ahead

if TYPE_CHECKING:
    from cluster_pool.cluster.collector import PoolCollector


class _NotRunning:
    """In place of a part of a node that does not run: every attribute raises PoolClosedError."""

    def __getattr__(self, name: str) -> Any:
        raise PoolClosedError(NOT_RUNNING)


_NOT_RUNNING: Final[Any] = _NotRunning()


class ClusterPool(
    Handle[Node],
    ConnectionCalls,
    SendingCalls,
    PeopleCalls,
    RevokingCalls,
    MembershipCalls,
    DirectoryCalls,
    DrainCalls,
):
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
        on_user_limit: where a user has ``Limits.user_connections`` already, ``"reject"`` raises
            MembershipLimitError for a newcomer; ``"oldest"`` closes the user's oldest connection
            with 4409 (``user limit``) when a newcomer has joined.
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
        auth: authenticates each client of :meth:`accept`; None: none is.
        receipts: whether the pongs and answered closes of clients are their receipts; False behind
            a proxy that ends WebSockets itself, since it answers in the place of its clients.
            ``confirm="client"`` is then as ``confirm=True``.
        history: which namespaces keep their latest broadcasts, by patterns in which ``*`` stands
            for any text: ``{"room:*": History()}``. The longest pattern counts. It is recorded in
            Redis, for all publishers; of nodes that name different bounds the larger ones count.
    """

    def __init__(
        self,
        redis: RedisOrUrl = DEFAULT_REDIS,
        *,
        node_id: str | None = None,
        prefix: str = DEFAULT_PREFIX,
        on_conflict: str = "takeover",
        on_user_limit: str = "reject",
        limits: Limits | None = None,
        timing: Timing | None = None,
        headroom: float = HEADROOM,
        secret: Secret | Iterable[Secret] | None = None,
        origins: Sequence[str] | None = None,
        auth: Auth | None = None,
        receipts: bool = True,
        history: Mapping[str, History] | None = None,
    ) -> None:
        setup = Setup.of(
            redis,
            prefix=prefix,
            limits=limits,
            timing=timing or Timing(),
            secret=secret,
            node_id=None if node_id is None else check_node_id(node_id),
            receipts=receipts,
            history=history,
        )
        self.auth = auth
        """Authenticates clients; None: none is."""
        self.door = Door(origins, setup.counters)
        """Checks handshakes before anything is claimed for them."""
        self._hooks = Hooks(setup.timing, setup.counters)
        headroom = check_above_zero("headroom", headroom)
        takeover, oldest = check_on_conflict(on_conflict), check_on_user_limit(on_user_limit)
        build = partial(
            Node, setup, self._hooks, headroom=headroom, takeover=takeover, oldest=oldest
        )
        super().__init__(setup, build)
        self._ahead = _ahead_of(self.limits, self.timing)

    def _max_token_age(self) -> float:
        return super()._max_token_age() if self.auth is None else self.auth.max_token_age

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

    @contextlib.asynccontextmanager
    async def lifespan(
        self, app: object = None, *, stopping: Stopping | None = None, wait: float | None = None
    ) -> AsyncIterator[None]:
        """Start this pool, drain it when its server is told to stop, and stop it.

        ``FastAPI(lifespan=pool.lifespan)``, or Starlette's. A lifespan of the application's own
        enters it: ``async with pool.lifespan(app): yield``. The drain begins with the signal, as
        :meth:`drain_on_signal` does, since servers close their sockets before they run the end of
        the lifespan. Several pools in one lifespan drain at the same time.

        Args:
            app: ignored; frameworks pass it.
            stopping: how a signal ends this node:
                ``FastAPI(lifespan=functools.partial(pool.lifespan, stopping=Stopping(…)))``.
            wait: as in :meth:`start`; the server accepts no client meanwhile, and ends late.

        Raises:
            As :meth:`start`; the server then does not start.
        """
        await self.start(wait=wait)
        try:
            async with self.drain_on_signal(stopping):
                yield
        finally:
            await self.stop()

    def operations(self, token: str | None = None) -> Operations:
        """An ASGI application about this node: ``app.mount("/ops", pool.operations(token))``.

        ``/healthz`` is 200 while the process lives, ``/readyz`` 200 while this node accepts
        newcomers, else 503. ``/metrics`` (for Prometheus) and ``/status`` (JSON) are answered to
        requests with ``Authorization: Bearer TOKEN``; without a token they are not there. It may
        be made, and asked, before the start and after the stop.

        Args:
            token: None or "" for none.

        Raises:
            InvalidValueError: the token is no str of visible ASCII characters.
        """
        return Operations(self, token)

    def metrics(self, name: str = "") -> "PoolCollector":
        """A collector for a registry of prometheus-client: ``REGISTRY.register(pool.metrics())``.

        It has the same metrics as ``/metrics`` of :meth:`operations`. It may be made before the
        start, collected in any thread and at any time, and costs nothing in between. A registry
        takes one; several pools of a process go into one collector:
        ``chat.metrics("chat") | feed.metrics("feed")``.

        Args:
            name: the value of a label ``pool`` of every sample; "" for no such label.

        Raises:
            ImportError: prometheus-client is missing: the extra ``cluster-pool[metrics]``.
        """
        from cluster_pool.cluster.collector import PoolCollector

        return PoolCollector({name: self.statistics})

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
            **process(),
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


def _ahead_of(limits: Limits, timing: Timing) -> Ahead:
    """The limits of reading ahead, of all WebSockets of a pool."""
    unread = limits.node_inbound_bytes - limits.node_inbound_bytes // SHARE
    return Ahead(limits.inbound_bytes, unread, timing.handler)
