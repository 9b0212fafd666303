"""Everything between one start of a node or publisher and Redis, built in one constructor.

Redis is one shard so far; :mod:`.topology` says which one has a namespace.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Protocol, Self

from cluster_pool.backplane.address import Address
from cluster_pool.backplane.claims import Claims
from cluster_pool.backplane.directory import Directory
from cluster_pool.backplane.drain_budget import RedisDrainBudget
from cluster_pool.backplane.lease_view import LeaseView
from cluster_pool.backplane.leases import Leases
from cluster_pool.backplane.locations import RedisOrUrl
from cluster_pool.backplane.outbound import Outbound
from cluster_pool.backplane.shard import Shard
from cluster_pool.backplane.topology import Topology
from cluster_pool.core.config import Limits, Timing, check_timeout
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.progress import Progress
from cluster_pool.core.results import Gap
from cluster_pool.core.seals import Seals, Secret
from cluster_pool.core.statistics import Counters
from cluster_pool.exceptions import InvalidValueError

DEFAULT_REDIS: Final = "redis://localhost:6379/0"


@dataclass(frozen=True, slots=True)
class Setup:
    """The checked arguments of a pool or publisher, the same for each of its starts.

    Attributes:
        counters: keep counting across starts.
        seals: None if items are not authenticated.
        node_id: the given one; with None each start makes one.
    """

    address: Address
    keys: Keys
    limits: Limits
    timing: Timing
    counters: Counters
    seals: Seals | None
    node_id: str | None

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
    ) -> Self:
        """Check the arguments; raises InvalidValueError for one that is not allowed."""
        seals = None if secret is None else Seals(secret)
        check_timeout(timing.timeout)
        keys = Keys(prefix)
        address = Address(redis, timing.timeout)
        address.check_prefix(keys.prefix)
        if address.kind == "cluster":
            raise InvalidValueError(
                f"{address.shown} is a Redis Cluster, which cluster_pool cannot use yet: give it "
                "one Redis (redis://), or Sentinels (redis+sentinel://)"
            )
        return cls(address, keys, limits or Limits(), timing, Counters(), seals, node_id)


class BackplaneObserver(Protocol):
    """Is told what happens to a backplane, by plain calls from the event loop."""

    def up(self) -> None:
        """A new generation hears its own probe: commands can be sent over it."""

    def down(self) -> None:
        """The generation that was up has ended."""

    def gap(self, gap: Gap) -> None:
        """Messages were missed."""


class Backplane:
    """The shard of one start, and all that publishes and reads over it.

    Args:
        observer: not called before :meth:`start`.
        holds: whether this process holds connections, whose gaps must be exact.
    """

    def __init__(self, setup: Setup, observer: BackplaneObserver, *, holds: bool) -> None:
        self.setup = setup
        self.loop = asyncio.get_running_loop()
        self.identity = Identity(setup.keys, setup.node_id)
        self.shard = Shard(
            setup.address,
            setup.keys,
            self.identity,
            self,
            limits=setup.limits,
            timing=setup.timing,
            counters=setup.counters,
            sealed=setup.seals is not None,
            holds=holds,
        )
        self.topology = Topology(self.shard)
        self.progress = Progress()
        view = LeaseView(setup.keys, self.shard.clock, setup.timing.heartbeat)
        self.outbound = Outbound(
            self.shard,
            setup.keys,
            self.identity,
            self.progress,
            view,
            limits=setup.limits,
            counters=setup.counters,
            seals=setup.seals,
        )
        self.leases = Leases(self.shard, setup.keys, self.identity, view)
        self.claims = Claims(self.topology, setup.keys, self.identity)
        self.directory = Directory(self.topology, setup.keys, self.leases, self.claims)
        self.drain_budget = RedisDrainBudget(self.shard, setup.keys)
        self._observer = observer
        self._timeout = check_timeout(setup.timing.timeout)

    async def start(self, wait: float | None) -> None:
        """Connect; returns when this process hears itself. Errors as :meth:`Shard.start`."""
        self.outbound.start()
        await self.shard.start(wait)

    async def stop(self) -> None:
        """Disconnect; unanswered operations fail."""
        self.outbound.stop()
        await self.shard.stop()

    def deadline(self, timeout: float | None) -> float:
        """When a call that begins now must have ended, on the loop's clock.

        Raises:
            InvalidValueError: ``timeout`` is no number above 0.
        """
        return self.loop.time() + (self._timeout if timeout is None else check_timeout(timeout))

    # -- the shard's observer --------------------------------------------------------------

    def up(self) -> None:
        """Forget publications over the old connection: this one does not hear them back."""
        self.progress.begin_anew()
        self.outbound.resume()
        self._observer.up()

    def down(self) -> None:
        """See :class:`BackplaneObserver`."""
        self._observer.down()

    def gap(self, gap: Gap) -> None:
        """See :class:`BackplaneObserver`."""
        self._observer.gap(gap)

    def forgotten(self, channel: str) -> None:
        """The channel is unsubscribed: nothing more is heard on it."""
        self.progress.forget(channel)
        self.outbound.forget(channel)
