"""Sending into the cluster and reading its membership, from a process with or without connections.

What :class:`ClusterPool` and :class:`Publisher` share: the session, the bus, the replies.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from cluster_pool.backplane.address import Address
from cluster_pool.backplane.directory import Directory
from cluster_pool.backplane.drain_budget import RedisDrainBudget
from cluster_pool.backplane.outbound import Outbound
from cluster_pool.backplane.registry import Registry
from cluster_pool.backplane.shard import Shard
from cluster_pool.cluster.dispatcher import Dispatcher, Handler, Turn
from cluster_pool.cluster.hooks import Hooks
from cluster_pool.cluster.life import Life, in_turn
from cluster_pool.cluster.orders import NodeOrders
from cluster_pool.cluster.replies import Replies
from cluster_pool.cluster.unsealing import ReplayCheck, Unsealing
from cluster_pool.cluster.watchers import Watchers
from cluster_pool.core import envelope
from cluster_pool.core.closing import NORMAL, check_close
from cluster_pool.core.config import Limits, Timing, check_timeout, check_wait
from cluster_pool.core.envelope import ReplyTo
from cluster_pool.core.identity import Identity
from cluster_pool.core.ids import check_excluded, check_id, check_namespace
from cluster_pool.core.keys import Keys
from cluster_pool.core.message import encode, to_json
from cluster_pool.core.progress import Progress
from cluster_pool.core.results import Gap, Member, MemberEvent, Node, NodeState, SendResult
from cluster_pool.core.seals import Seals, Secret
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import (
    BackplaneUnavailableError,
    PoolClosedError,
)
from cluster_pool.loops import check_loop

if TYPE_CHECKING:
    from redis.asyncio import Redis

DEFAULT_REDIS = "redis://localhost:6379/0"


class _NotStarted:
    """Stands for everything that ``start`` makes, before it has."""

    def __getattr__(self, name: str) -> Any:
        raise PoolClosedError("not started, or stopped")


NOT_STARTED: Any = _NotStarted()

_LOST: list[object] = []
"""What was started in another process, before a fork, or in a loop that is closed. It is kept: its
coroutines, once nobody held them, would close sockets, and take them from the parent's selector."""


def started(part: object) -> bool:
    """Whether a part of a pool is there, or only stands for one that ``start`` will make."""
    return part is not NOT_STARTED


class _Observer:
    """Takes what a shard tells of itself to the pool that it belongs to."""

    def __init__(self, sender: "Sender") -> None:
        self.up = sender._went_up
        self.down = sender._went_down
        self.gap = sender._missed
        self.forgotten = sender._forgot


class Sender(NodeOrders):
    """Everything that needs no connections of one's own. Not used by itself."""

    _holds = False
    """Whether connections are held here, whose gaps must be exact."""

    def __init__(
        self,
        redis: "str | Redis",
        node_id: str | None,
        *,
        prefix: str,
        limits: Limits,
        timing: Timing,
        counters: Counters,
        secret: Secret | Iterable[Secret] | None,
    ) -> None:
        self._seals = None if secret is None else Seals(secret)
        self.limits = limits
        self.timing = timing
        self._timeout = check_timeout(timing.timeout)
        self.counters = counters
        self._given_id = node_id
        self._life = Life(self._end)
        self._keys = Keys(prefix)
        self._identity: Identity = NOT_STARTED
        self._address = Address(redis, timing.timeout)
        self._address.check_prefix(self._keys.prefix)
        self._hooks = Hooks(timing, counters)
        self._loop: asyncio.AbstractEventLoop = NOT_STARTED
        self._shard: Shard = NOT_STARTED
        self._outbound: Outbound = NOT_STARTED
        self._progress: Progress = NOT_STARTED
        self._replies: Replies = NOT_STARTED
        self._watchers: Watchers = NOT_STARTED
        self._dispatcher: Dispatcher = NOT_STARTED
        self._registry: Registry = NOT_STARTED
        self._directory: Directory = NOT_STARTED
        self._ledger: RedisDrainBudget = NOT_STARTED

    def _assemble(self) -> None:
        """Make what is bound to the running loop."""
        self._loop = asyncio.get_running_loop()
        self._identity = Identity(self._keys, self._given_id)
        self._shard = Shard(
            self._address,
            self._keys,
            self._identity,
            _Observer(self),
            limits=self.limits,
            timing=self.timing,
            counters=self.counters,
            sealed=self._seals is not None,
            holds=self._holds,
        )
        self._progress = Progress()
        self._replies = Replies(self._identity)
        self._watchers = Watchers(self.counters)
        self._outbound = Outbound(
            self._shard,
            self._keys,
            self._identity,
            self._progress,
            limits=self.limits,
            counters=self.counters,
            seals=self._seals,
        )
        self._registry = Registry(self._shard, self._keys, self._identity)
        self._directory = Directory(self._registry)
        self._ledger = RedisDrainBudget(self._shard, self._keys)
        self._dispatcher = self._dispatcher_to(Turn(), self._unsealing(None), None)

    def _unsealing(self, recordings: ReplayCheck | None) -> Unsealing | None:
        if self._seals is None:
            return None
        return Unsealing(
            self._seals, self._shard, self._identity, self._keys, self.counters, recordings
        )

    def _dispatcher_to(
        self, turn: Turn, unsealing: Unsealing | None, handler: Handler | None
    ) -> Dispatcher:
        return Dispatcher(
            self._shard,
            self._keys,
            self._identity,
            self._progress,
            self._replies,
            self._watchers,
            unsealing,
            turn,
            handler,
        )

    def _went_up(self) -> None:
        self._progress.begin_anew()
        self._outbound.resume()

    def _went_down(self) -> None:
        """Nothing here depends on it; a node renews its lease."""

    def _missed(self, gap: Gap) -> None:
        self._hooks.fire("gap", gap)

    def _forgot(self, channel: str) -> None:
        self._progress.forget(channel)
        self._outbound.forget(channel)

    # -- lifetime --------------------------------------------------------------------------

    def _begin(self, wait: float | None) -> Coroutine[Any, Any, None]:
        """Make everything at once, then connect; what was made is ended by :meth:`_end`."""
        if self._life.lost:
            _LOST.append(vars(self).copy())
        self._assemble()
        return self._connect(wait)

    async def _connect(self, wait: float | None) -> None:
        self._outbound.start()
        self._dispatcher.start()
        await self._shard.start(wait)

    async def _end(self) -> None:
        await in_turn(self._forget_channel, self._close)

    async def _forget_channel(self) -> None:
        if self._shard.up:
            with contextlib.suppress(BackplaneUnavailableError):
                await self._registry.forget_channel(self._deadline(None))

    async def _close(self) -> None:
        self._outbound.stop()
        self._replies.stop()
        self._watchers.stop()
        await in_turn(self._dispatcher.stop, self._shard.stop, self._hooks.stop)

    async def start(self, *, wait: float | None = None) -> Self:
        """Connect to Redis. ``async with`` does it too.

        It may be started again after a stop. A call during another waits for the same start, one
        that is cancelled leaves nothing behind.

        Args:
            wait: seconds to go on trying while Redis cannot be reached, 0 or more, infinity too;
                None tries once.

        Raises:
            BackplaneUnavailableError: Redis cannot be reached; the text names its address.
            PoolClosedError: :meth:`stop` was called before it was up.
        """
        await self._life.start(partial(self._begin, None if wait is None else check_wait(wait)))
        return self

    async def stop(self) -> None:
        """Disconnect. What is still unanswered fails.

        Harmless when called twice, and in the middle of a start, which then raises PoolClosedError.
        A cancelled call goes on by itself; another one waits for it.
        """
        await self._life.stop()

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    @property
    def address(self) -> str:
        """Where Redis is, without its password."""
        return self._address.shown

    @property
    def trouble(self) -> str:
        """Why Redis does not serve this process, in a sentence; "" while it does.

        It says what Redis or the network said, and what to do where that is known. From any thread,
        also before the start. The errors of calls that wait in vain end with the same sentence.
        """
        return self._shard.outage.reason if started(self._shard) else ""

    # -- sending ---------------------------------------------------------------------------

    async def send(
        self,
        namespace: str,
        id: str,
        message: str | bytes,
        *,
        confirm: bool = False,
        timeout: float | None = None,
    ) -> SendResult:
        """Send one message to one member, wherever it is.

        Messages from here to one connection arrive in the order of these calls. At most once:
        nothing is retried. Concurrent sends travel together.

        Args:
            namespace, id: whom.
            message: ``str`` arrives as a text message, ``bytes`` as a binary one.
            confirm: wait for the owner's word: DELIVERED, REFUSED, ABSENT, or TIMED_OUT.
            timeout: seconds, more than 0; default 2, at most an hour (as for every call).

        Returns:
            What happened; truthy for DELIVERED and ROUTED. See :class:`SendResult`.

        Raises:
            InvalidValueError: an argument is not allowed, the message too large among them.
            WrongLoopError: called in another thread or loop than :meth:`start`, as for every call.
            PendingLimitError: too much waits for Redis already.
            BackplaneUnavailableError: not sent; with ``maybe_executed``, Redis did not answer.
        """
        if not confirm:
            return await self.send_nowait(namespace, id, message, timeout=timeout)
        deadline = self._deadline(timeout)
        namespace, id = check_namespace(namespace), check_id(id)
        text, payload = encode(message, self.limits.message_bytes)
        result = self._deliver_here(namespace, id, text, payload, None)
        if result is not None:
            return result
        return await self._dispatch(namespace, id, text, payload, None, confirm, deadline)

    def send_nowait(
        self, namespace: str, id: str, message: str | bytes, *, timeout: float | None = None
    ) -> asyncio.Future[SendResult]:
        """:meth:`send` from code that does not wait, or for many at once: no task for each.

        The message has its place in the order when this returns. The future gives the result, or
        raises what Redis makes of it; asyncio logs an error that nobody asked for. Cancelling it
        takes the message back as long as it has not left for Redis.

        Raises:
            InvalidValueError, PendingLimitError: as :meth:`send`, at once.
            PoolClosedError: not started, or stopped.
            WrongLoopError: called in another thread or loop than :meth:`start`.
        """
        deadline = self._deadline(timeout)
        namespace, id = check_namespace(namespace), check_id(id)
        text, payload = encode(message, self.limits.message_bytes)
        result = self._deliver_here(namespace, id, text, payload, None)
        if result is None:
            item = envelope.targeted(text, namespace, id, payload)
            return self._outbound.send(namespace, id, item, deadline)
        done: asyncio.Future[SendResult] = self._loop.create_future()
        done.set_result(result)
        return done

    async def send_json(
        self,
        namespace: str,
        id: str,
        value: Any,
        *,
        confirm: bool = False,
        timeout: float | None = None,
    ) -> SendResult:
        """Send ``value`` as JSON text; as :meth:`send`."""
        return await self.send(namespace, id, to_json(value), confirm=confirm, timeout=timeout)

    async def send_then_close(
        self,
        namespace: str,
        id: str,
        message: str | bytes,
        code: int = NORMAL,
        reason: str = "",
        *,
        confirm: bool = False,
        timeout: float | None = None,
    ) -> SendResult:
        """Send one message to one member and close its connection behind it; as :meth:`send`."""
        deadline = self._deadline(timeout)
        namespace, id = check_namespace(namespace), check_id(id)
        text, payload = encode(message, self.limits.message_bytes)
        close = check_close(code, reason)
        result = self._deliver_here(namespace, id, text, payload, close)
        if result is not None:
            return result
        return await self._dispatch(namespace, id, text, payload, close, confirm, deadline)

    async def send_json_then_close(
        self,
        namespace: str,
        id: str,
        value: Any,
        code: int = NORMAL,
        reason: str = "",
        *,
        confirm: bool = False,
        timeout: float | None = None,
    ) -> SendResult:
        """Send ``value`` as JSON text and close behind it; as :meth:`send`."""
        return await self.send_then_close(
            namespace, id, to_json(value), code, reason, confirm=confirm, timeout=timeout
        )

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
        """Close one member's connection, wherever it is; results and errors as :meth:`send`."""
        deadline = self._deadline(timeout)
        namespace, id = check_namespace(namespace), check_id(id)
        code, reason = check_close(code, reason)

        def item(reply: ReplyTo | None) -> bytes:
            return envelope.close_one(namespace, id, code, reason, reply)

        return await self._route(namespace, id, item, confirm, deadline)

    async def broadcast_message(
        self,
        namespace: str,
        message: str | bytes,
        exclude: Iterable[str] = (),
        *,
        timeout: float | None = None,
    ) -> int:
        """Send one message to every member of a namespace, on every node.

        Every member sees the broadcasts of its namespace in one order, the same everywhere.

        Args:
            exclude: ids that do not get it, at most 10,000.
            timeout: seconds; default 2.

        Returns:
            How many nodes Redis handed it to. 0 proves that nobody heard it; more proves nothing.

        Raises:
            As :meth:`send`.
        """
        deadline = self._deadline(timeout)
        namespace = check_namespace(namespace)
        text, payload = encode(message, self.limits.message_bytes)
        item = envelope.broadcast(text, payload, check_excluded(exclude))
        return await self._outbound.broadcast(namespace, item, deadline)

    async def broadcast_json_message(
        self,
        namespace: str,
        value: Any,
        exclude: Iterable[str] = (),
        *,
        timeout: float | None = None,
    ) -> int:
        """Send ``value`` as JSON text to every member; as :meth:`broadcast_message`."""
        return await self.broadcast_message(namespace, to_json(value), exclude, timeout=timeout)

    async def close_all(
        self,
        namespace: str,
        code: int = NORMAL,
        reason: str = "",
        *,
        timeout: float | None = None,
    ) -> int:
        """Close every member's connection; gives how many nodes Redis told.

        Comes behind the broadcasts that were sent before it. Raises as :meth:`send`.
        """
        deadline = self._deadline(timeout)
        namespace = check_namespace(namespace)
        item = envelope.close_all(*check_close(code, reason))
        return await self._outbound.broadcast(namespace, item, deadline)

    def _deliver_here(
        self, namespace: str, id: str, text: bool, payload: bytes, close: tuple[int, str] | None
    ) -> SendResult | None:
        """Deliver in this process, if it holds the connection; None sends it over the bus."""
        return None

    def _dispatch(
        self,
        namespace: str,
        id: str,
        text: bool,
        payload: bytes,
        close: tuple[int, str] | None,
        confirm: bool,
        deadline: float,
    ) -> Awaitable[SendResult]:
        if not confirm:
            item = envelope.targeted(text, namespace, id, payload, close=close)
            return self._outbound.send(namespace, id, item, deadline)

        def build(reply: ReplyTo | None) -> bytes:
            return envelope.targeted(text, namespace, id, payload, close=close, reply=reply)

        return self._route(namespace, id, build, confirm, deadline)

    async def _route(
        self,
        namespace: str,
        id: str,
        build: Callable[[ReplyTo | None], bytes],
        confirm: bool,
        deadline: float,
    ) -> SendResult:
        """Hand a targeted item to its owner and, if asked, wait for the owner's word."""
        if not confirm:
            return await self._outbound.send(namespace, id, build(None), deadline)
        to, word = self._replies.expect()
        try:
            item = build(to)
            result = await self._outbound.send(namespace, id, item, deadline)
            return await _word_of_owner(word, deadline) if result else result
        finally:
            self._replies.forget(to)

    def _deadline(self, timeout: float | None) -> float:
        """When a public call that begins now must have ended, on the loop's clock.

        Raises:
            PoolClosedError: not started, or stopped.
            WrongLoopError: this is not the loop of :meth:`start`.
            InvalidValueError: ``timeout`` is no number above 0.
        """
        seconds = self._timeout if timeout is None else check_timeout(timeout)
        return self._own_loop().time() + seconds

    def _own_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of :meth:`start`; raises WrongLoopError in any other, having done nothing."""
        loop = self._loop
        if loop is NOT_STARTED:
            raise PoolClosedError("not started, or stopped")
        return check_loop(loop)

    # -- reading ---------------------------------------------------------------------------

    async def count(self, namespace: str, *, timeout: float | None = None) -> int:
        """How many members a namespace has in the cluster, those of dead nodes left out."""
        namespace = check_namespace(namespace)
        return await self._directory.count(namespace, self._deadline(timeout))

    async def members(
        self, namespace: str, *, timeout: float | None = None
    ) -> AsyncIterator[Member]:
        """The members of a namespace, a page at a time; no reply is ever huge.

        Who joins or leaves meanwhile may or may not be seen, and an id may be given twice while
        Redis resizes its table (as HSCAN documents); everyone who stays is seen, also when its
        node rejoins meanwhile.

        Args:
            timeout: seconds for each page; default 2.
        """
        seconds = self._deadline(timeout) - self._loop.time()
        namespace = check_namespace(namespace)
        async for member in self._directory.members(namespace, seconds):
            yield member

    async def namespaces(self, *, timeout: float | None = None) -> list[str]:
        """The namespaces that have members, sorted.

        The counts of all that may have some are read, 500 in a round trip; ``timeout`` is for the
        whole call.
        """
        return await self._directory.namespaces(self._deadline(timeout))

    async def nodes(self, *, timeout: float | None = None) -> list[Node]:
        """The live nodes, sorted by id; each once, also while it rejoins."""
        found = await self._directory.nodes(self._deadline(timeout))
        nodes = []
        for node_id, (incarnation, info, lease) in found.items():
            state, count = _read_info(info)
            nodes.append(Node(node_id, incarnation, state, count, lease))
        return sorted(nodes, key=lambda node: node.id)

    async def locate(
        self, namespace: str, id: str, *, timeout: float | None = None
    ) -> Member | None:
        """Which node owns an id, or None when no living node does."""
        deadline = self._deadline(timeout)
        namespace, id = check_namespace(namespace), check_id(id)
        return await self._directory.locate(namespace, id, deadline)

    @contextlib.asynccontextmanager
    async def watching(self, namespace: str) -> AsyncIterator[AsyncIterator[MemberEvent]]:
        """Joins and leaves of a namespace, from the moment this is entered.

        What comes, and what is said of what does not, is as :meth:`watch` has it. So a list of
        members stays right that is read once this is entered, and again after each ``"lost"``::

            async with pool.watching("room") as events:
                members = {member.id: member.node async for member in pool.members("room")}
                async for event in events:
                    if event.event == "join":
                        members[event.id] = event.node
                    elif event.event == "leave":
                        members.pop(event.id, None)
                    else:  # "lost"
                        members = {member.id: member.node async for member in pool.members("room")}

        A reading that fails must be tried again until it succeeds: nothing is lost twice.

        Raises:
            BackplaneUnavailableError: Redis did not confirm the subscription in time.
        """
        deadline = self._deadline(None)
        namespace = check_namespace(namespace)
        channel = self._keys.events(namespace)
        watchers = self._watchers
        watch = watchers.add(channel)

        async def events() -> AsyncIterator[MemberEvent]:
            while True:
                yield await watch.get()

        try:
            counted = self._keys.owners(namespace)
            await self._shard.subscribe(channel, deadline, counted=counted)
            yield events()
        finally:
            if watchers.remove(channel, watch):
                self._shard.unsubscribe([channel])

    async def watch(self, namespace: str) -> AsyncIterator[MemberEvent]:
        """Joins and leaves of a namespace, as they happen.

        Events come in the order of the registry, each at most once. A takeover is a join with the
        new node, and so is a claim that a node had to register again. Where events were lost, or
        may have been (the link to Redis was interrupted, Redis lost its state, this reader is
        10,000 events behind), one event ``"lost"`` stands in their place: the members must be read
        again. It is counted (``watch_losses``). While Redis is away nothing comes, and
        ``"lost"`` is said when it is back. To be sure of everything from a known moment on, enter
        :meth:`watching` first; there is also how to keep a list of members.

        Raises:
            PoolClosedError: it was stopped.
        """
        async with self.watching(namespace) as events:
            async for event in events:
                yield event


def _read_info(info: str) -> tuple[NodeState, int]:
    """State and connections, as a node told them; of what it never said, active and none."""
    try:
        said = json.loads(info)
        return NodeState(said["state"]), int(said["connections"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return NodeState.ACTIVE, 0


async def _word_of_owner(word: asyncio.Future[Any], deadline: float) -> SendResult:
    """What the owner says of a message that it was handed, TIMED_OUT when that is not heard.

    Also when this pool stops first: the message is on its way all the same.
    """
    try:
        async with asyncio.timeout_at(deadline):
            answer: SendResult = await word
            return answer
    except (TimeoutError, PoolClosedError):
        return SendResult.TIMED_OUT
