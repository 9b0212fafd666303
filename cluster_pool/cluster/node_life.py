"""The state of a node between its start and its stop, read and changed by its parts."""

from collections.abc import Callable

from cluster_pool.core.results import NodeState
from cluster_pool.exceptions import PoolClosedError


class NodeLife:
    """The state of a node.

    Args:
        on_change: called after each change.
    """

    def __init__(self, on_change: Callable[[NodeState], None]) -> None:
        self.state = NodeState.STOPPED
        self._on_change = on_change

    def become(self, state: NodeState) -> None:
        """Change the state."""
        self.state = state
        self._on_change(state)

    def check_running(self) -> None:
        """Raise PoolClosedError unless the node runs, or is about to."""
        if self.state is NodeState.STOPPED:
            raise PoolClosedError("not started, or stopped")
