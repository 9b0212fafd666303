"""Where a node stands between its start and its stop: one state, read and changed by its parts."""

from collections.abc import Callable

from cluster_pool.core.results import NodeState
from cluster_pool.exceptions import PoolClosedError


class NodeLife:
    """The state of a node.

    Args:
        on_change: told of each change, after it.
    """

    def __init__(self, on_change: Callable[[NodeState], None]) -> None:
        self.state = NodeState.STOPPED
        self._on_change = on_change

    def become(self, state: NodeState) -> None:
        """The node is in this state from now on."""
        self.state = state
        self._on_change(state)

    def check_running(self) -> None:
        """Raise PoolClosedError unless the node runs, or is about to."""
        if self.state is NodeState.STOPPED:
            raise PoolClosedError("not started, or stopped")
