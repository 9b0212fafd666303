"""Which shard has a key: the one place that knows how many shards there are.

There is one today, and asking for it costs one call. A Redis Cluster has one for each primary; only
this module and the script that routes targeted items rely on there being one.
"""

from collections.abc import Coroutine
from typing import Any

from cluster_pool.backplane.calls import Deadline
from cluster_pool.backplane.generation import Generation
from cluster_pool.backplane.shard import Shard


class Topology:
    """The shards of one start.

    Attributes:
        home: the shard of leases, nodes, drains and nodes' own channels, which are of no namespace.
    """

    __slots__ = ("home",)

    def __init__(self, home: Shard) -> None:
        self.home = home

    def of(self, key: str) -> Shard:
        """The shard that has a key, a channel, or all that belongs to a namespace.

        A Redis Cluster hashes what stands between braces, which is the namespace in each of our
        names; a namespace by itself has no braces and is hashed as a whole, to the same.
        """
        return self.home

    @property
    def current(self) -> Generation | None:
        """The generation over which operations on any namespace go now; None while none is up."""
        return self.home.current

    def connected(self, deadline: Deadline) -> Coroutine[Any, Any, Generation]:
        """Wait for it; see :meth:`.Generations.connected`."""
        return self.home.connected(deadline)
