"""Everything between one start of a node or publisher and Redis, built in one constructor."""

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, Self

from cluster_pool.backplane.address import Address
from cluster_pool.backplane.channel_commands import SHARDED
from cluster_pool.backplane.claims import Claims
from cluster_pool.backplane.cluster_parts import ClusterPart
from cluster_pool.backplane.cluster_topology import ClusterTopology, Place
from cluster_pool.backplane.directory import Directory
from cluster_pool.backplane.drain_budget import RedisDrainBudget
from cluster_pool.backplane.histories import Histories
from cluster_pool.backplane.inbox import Inbox
from cluster_pool.backplane.lease_view import LeaseView
from cluster_pool.backplane.leases import Leases
from cluster_pool.backplane.locations import RedisOrUrl
from cluster_pool.backplane.outbound import Outbound
from cluster_pool.backplane.revocations import Revocations
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.shard_context import Reached, ShardContext
from cluster_pool.backplane.topology import SingleTopology, Topology
from cluster_pool.core.config import Limits, Timing, check_timeout
from cluster_pool.core.history import History, HistoryRules
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.progress import Progress
from cluster_pool.core.results import Gap
from cluster_pool.core.seals import Seals, Secret
from cluster_pool.core.statistics import Counters

DEFAULT_REDIS: Final = "redis://localhost:6379/0"


@dataclass(frozen=True, slots=True)
class Setup:
    """The checked arguments of a pool or publisher, the same for each of its starts.

    Attributes:
        counters: keep counting across starts.
        seals: None if items are not authenticated.
        node_id: the given one; with None each start makes one.
        receipts: whether pongs and answered closes are receipts of clients.
        histories: which namespaces this node asks to have a history.
    """

    address: Address
    keys: Keys
    limits: Limits
    timing: Timing
    counters: Counters
    seals: Seals | None
    node_id: str | None
    receipts: bool
    histories: HistoryRules

    @classmethod
    def of(
        cls,
        redis: RedisOrUrl,
        *,
        prefix: str,
        limits: Limits | None,
        timing: Timing,
        secret: Secret | Iterable[Secret] | None,
        node_id: str | None = None,
        receipts: bool = True,
        history: Mapping[str, History] | None = None,
    ) -> Self:
        """Check the arguments; raises InvalidValueError for one that is not allowed."""
        seals = None if secret is None else Seals(secret)
        check_timeout(timing.timeout)
        keys = Keys(prefix)
        address = Address(redis, timing.timeout)
        address.check_prefix(keys.prefix)
        limits = limits or Limits()
        rules = HistoryRules(history, timing.heartbeat)
        counters = Counters()
        return cls(address, keys, limits, timing, counters, seals, node_id, receipts, rules)


class BackplaneObserver(Protocol):
    """Is told what happens to a backplane, by plain calls from the event loop."""

    def up(self) -> None:
        """A new generation hears its own probe: commands can be sent over it. With several shards
        this is about home."""

    def down(self) -> None:
        """The generation that was up has ended; with several shards, that of home."""

    def part_up(self, shard: Shard) -> None:
        """A new generation of another shard hears its own probe: claims there may be lost."""

    def part_down(self, shard: Shard) -> None:
        """The generation of another shard that was up has ended."""

    def moved(self, slots: Collection[int]) -> None:
        """These slots of a cluster are at other shards now; called again when their channels are
        heard there."""

    def gap(self, gap: Gap) -> None:
        """Messages were missed."""


class Backplane:
    """The shards of one start, and all that publishes and reads over them.

    Args:
        observer: not called before :meth:`start`.
        holds: whether this process holds connections, whose gaps must be exact.
    """

    def __init__(self, setup: Setup, observer: BackplaneObserver, *, holds: bool) -> None:
        self.setup = setup
        self.loop = asyncio.get_running_loop()
        self.identity = Identity(setup.keys, setup.node_id, claimed=not holds)
        self.inbox = Inbox(setup.limits.inbox_bytes)
        self._context = ShardContext(
            setup.keys,
            self.identity,
            self.inbox,
            setup.limits,
            setup.timing,
            setup.counters,
            sealed=setup.seals is not None,
            holds=holds,
            histories=setup.histories,
        )
        self._observer = observer
        self._timeout = check_timeout(setup.timing.timeout)
        self.topology: Topology = self._topology()
        self.shard = self.topology.home
        self.progress = Progress()
        view = LeaseView(setup.keys, self.shard.clock, setup.timing.heartbeat)
        self.outbound = Outbound(
            self.topology,
            setup.keys,
            self.identity,
            self.progress,
            view,
            limits=setup.limits,
            counters=setup.counters,
            seals=setup.seals,
        )
        self.leases = Leases(self.shard, setup.keys, self.identity, view)
        self.claims = Claims(self.topology, setup.keys, self.identity, setup.histories)
        self.directory = Directory(self.topology, setup.keys, self.leases, self.claims)
        self.histories = Histories(self.topology, setup.keys)
        self.revocations = Revocations(self.shard, setup.keys)
        self.drain_budget = RedisDrainBudget(self.shard, setup.keys)

    def _topology(self) -> Topology:
        setup = self.setup
        if setup.address.kind != "cluster":
            return SingleTopology(Shard(setup.address, self._context, self), setup.keys)

        def make(place: Place) -> Shard:
            part = place if isinstance(place, ClusterPart) else None
            return Shard(place, self._context, self, channels=SHARDED, part=part)

        return ClusterTopology(setup.address, make, setup.keys, self.identity, self)

    @property
    def reached(self) -> Reached:
        """See :class:`Reached`."""
        return self._context.reached

    async def start(self, wait: float | None) -> None:
        """Connect; returns when this process hears itself. Errors as :meth:`Shard.start`."""
        self.outbound.start()
        await self.topology.start(wait)

    async def stop(self) -> None:
        """Disconnect; unanswered operations fail."""
        self.outbound.stop()
        await self.topology.stop()

    def deadline(self, timeout: float | None) -> float:
        """When a call that begins now must have ended, on the loop's clock.

        Raises:
            InvalidValueError: ``timeout`` is no number above 0.
        """
        return self.loop.time() + (self._timeout if timeout is None else check_timeout(timeout))

    # -- the observer of shards and topology -----------------------------------------------

    def up(self, shard: Shard) -> None:
        """Forget publications over the old connection: this one does not hear them back."""
        self.progress.begin_anew(shard.listens)
        self.outbound.resume(shard)
        if shard is self.shard:
            self._observer.up()
        else:
            self._observer.part_up(shard)

    def down(self, shard: Shard) -> None:
        """See :class:`BackplaneObserver`."""
        if shard is self.shard:
            self._observer.down()
        else:
            self._observer.part_down(shard)

    def elsewhere(self) -> None:
        """A shard has given slots away."""
        self.topology.look_again()

    def moved(self, slots: Collection[int]) -> None:
        """See :class:`BackplaneObserver`."""
        self.outbound.move()
        self._observer.moved(slots)

    def gap(self, gap: Gap) -> None:
        """See :class:`BackplaneObserver`."""
        self._observer.gap(gap)

    def forgotten(self, channel: str) -> None:
        """The channel is unsubscribed: nothing more is heard on it."""
        self.progress.forget(channel)
        self.outbound.forget(channel)
