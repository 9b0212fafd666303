"""Which shard has a key: the one place that knows how many shards there are.

One Redis has everything. A Redis Cluster has several shards: see :mod:`.cluster_topology`. Users of
a topology ask it for the shard of a namespace, or for home, and do not know which kind it is.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from typing import Any, Protocol

from cluster_pool.backplane.calls import Deadline
from cluster_pool.backplane.command_connection import Argument, ScriptCall
from cluster_pool.backplane.generation import Generation
from cluster_pool.backplane.outage import Outage
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.subscription import Subscription
from cluster_pool.core.keys import Keys


class Commands(Protocol):
    """Takes commands to one Redis; see :class:`.CommandConnection`."""

    def call(self, *arguments: Argument) -> asyncio.Future[Any]:
        """Queue a command; its future gives the reply."""

    def script(self, call: ScriptCall) -> asyncio.Future[Any]:
        """Queue one of our scripts."""


class Links(Protocol):
    """The links of now, for operations that must be executed over these or not at all.

    Such an operation queues its command before it returns, so that one Redis executes operations
    in the order of their calls. Nothing holds between two: a step that needs another one's effect
    awaits its reply.
    """

    def commands(self, key: str) -> Commands:
        """Takes commands to the Redis that has ``key``; without a link to it each of them fails."""

    def script(self, call: ScriptCall) -> asyncio.Future[Any]:
        """Queue one of our scripts where its keys are; its first key stands for all of them."""


class Channels(Protocol):
    """Subscribes channels; see :class:`.Subscriptions`."""

    def add(self, channel: str, *, counted: str = "") -> Subscription:
        """Want a channel; see :meth:`.Subscriptions.add`."""


class Topology(Protocol):
    """The shards of one start."""

    @property
    def home(self) -> Shard:
        """The shard of leases, nodes, drains and nodes' own channels, which belong to no namespace.

        It is the same object as long as this start lasts.
        """

    @property
    def subscriptions(self) -> Channels:
        """Subscribes channels of any shard."""

    @property
    def spans(self) -> bool:
        """Whether there are several shards, so that a script must touch keys of one slot."""

    def of(self, key: str) -> Shard:
        """The shard that has a key, a channel, or all that belongs to a namespace.

        A Redis Cluster hashes what stands between braces, which is the namespace in each of our
        names; a namespace by itself has no braces and is hashed as a whole, to the same.
        """

    @property
    def shards(self) -> Sequence[Shard]:
        """All shards, home first."""

    def together(self, namespaces: Iterable[str]) -> Iterator[list[str]]:
        """Split namespaces into parts that one script may use."""

    async def by_shard(self, namespaces: Iterable[str]) -> dict[Shard, list[str]]:
        """Group namespaces by their shards, those of each as :meth:`in_calls` has them."""

    async def in_calls(self, namespaces: Iterable[str]) -> list[str]:
        """Put namespaces in an order in which those that one script may use stand together.

        A caller that then takes part after part of very many makes few calls for each part. It
        takes a turn of the loop for each few thousand.
        """

    def routed_prefix(self, namespace: str) -> str:
        """The channel of items targeted at members of one start, without its name at the end."""

    @property
    def current(self) -> Links | None:
        """The links for operations on any namespace; None while home is down."""

    def connected(self, deadline: Deadline) -> Coroutine[Any, Any, Links]:
        """Wait for the links; see :meth:`.Generations.connected`."""

    def call(self, deadline: float, key: str, *arguments: Argument) -> Coroutine[Any, Any, Any]:
        """Call one command about a key; BackplaneUnavailableError without an answer in time."""

    def script(self, deadline: float, call: ScriptCall) -> Coroutine[Any, Any, Any]:
        """Call one of our scripts, as :meth:`call` does."""

    def publish(self, channel: str, payload: bytes, deadline: float) -> Coroutine[Any, Any, int]:
        """Publish a payload that is no envelope; see :meth:`.Shard.publish`."""

    def look_again(self) -> None:
        """Look soon for the new place of a key that has moved."""

    @property
    def outage(self) -> Outage:
        """The outage to report: that of home, or of another shard if home has none."""

    @property
    def share_up(self) -> float:
        """The part of what this process listens to, from 0 to 1, whose shard is up.

        Of all slots, as long as it listens to nothing but its own channels.
        """

    def rename(self, reason: str) -> None:
        """This node has another node id: begin a new generation of home, which listens under it."""

    async def start(self, wait: float | None) -> None:
        """Connect; see :meth:`.Shard.start`."""

    async def stop(self) -> None:
        """Disconnect."""


class SingleTopology:
    """One Redis, which has everything; see :class:`Topology`."""

    spans = False

    def __init__(self, home: Shard, keys: Keys) -> None:
        self.home = home
        self.subscriptions = home.subscriptions
        self.shards = (home,)
        self.connected = home.connected
        self.script = home.script
        self.publish = home.publish
        self.start = home.start
        self.stop = home.stop
        self._routed = keys.start_prefix

    def of(self, key: str) -> Shard:
        """See :meth:`Topology.of`."""
        return self.home

    def together(self, namespaces: Iterable[str]) -> Iterator[list[str]]:
        """One script may use all of them."""
        yield list(namespaces)

    async def by_shard(self, namespaces: Iterable[str]) -> dict[Shard, list[str]]:
        """All of them have the one shard."""
        return {self.home: list(namespaces)}

    async def in_calls(self, namespaces: Iterable[str]) -> list[str]:
        """One script may use all of them."""
        return list(namespaces)

    def routed_prefix(self, namespace: str) -> str:
        """The channel of a start, which is the same for all namespaces."""
        return self._routed

    @property
    def current(self) -> Generation | None:
        """See :attr:`Topology.current`."""
        return self.home.current

    def call(self, deadline: float, key: str, *arguments: Argument) -> Coroutine[Any, Any, Any]:
        """See :meth:`Topology.call`."""
        return self.home.call(deadline, *arguments)

    def look_again(self) -> None:
        """Do nothing: one Redis has all keys."""

    @property
    def outage(self) -> Outage:
        """See :attr:`Topology.outage`."""
        return self.home.outage

    @property
    def share_up(self) -> float:
        """The whole share, or none."""
        return float(self.home.up)

    def rename(self, reason: str) -> None:
        """See :meth:`Topology.rename`."""
        self.home.begin_anew(reason)
