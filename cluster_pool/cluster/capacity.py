"""How many newcomers a node can accept: the configured rate, less the present arrivals."""

from cluster_pool.cluster.lease import boottime
from cluster_pool.cluster.node_life import NodeLife
from cluster_pool.core.pacing import ArrivalRate
from cluster_pool.core.results import NodeState
from cluster_pool.core.statistics import Counters


class Capacity:
    """Connections per second that a node can accept.

    Attributes:
        most: that of a node without arrivals at the moment.
    """

    def __init__(self, most: float, life: NodeLife, counters: Counters) -> None:
        self.most = most
        self._life = life
        self._counters = counters
        self._arrivals = ArrivalRate()

    def headroom(self) -> float | None:
        """The rate that is left; None while the node accepts no newcomers."""
        if self._life.state not in (NodeState.STARTING, NodeState.ACTIVE):
            return None
        taking = self._arrivals.rate(self._counters.accepted, boottime())
        return max(0.0, self.most - taking)

    def free(self) -> float | None:
        """The share that is left, 0 to 1; None while the node is not active."""
        headroom = self.headroom() if self._life.state is NodeState.ACTIVE else None
        return None if headroom is None else headroom / self.most
