"""The state of a node, and the listeners of its changes."""

import pytest

from cluster_pool import NodeState, PoolClosedError
from cluster_pool.cluster.node_life import NodeLife


def test_a_change_is_told_once_it_has_happened() -> None:
    """A listener that reads the state finds the new one."""
    told: list[tuple[NodeState, NodeState]] = []
    life = NodeLife(lambda state: told.append((state, life.state)))
    life.become(NodeState.ACTIVE)
    life.become(NodeState.DRAINED)
    assert told == [(state, state) for state in (NodeState.ACTIVE, NodeState.DRAINED)]


def test_a_stopped_node_is_not_running() -> None:
    """Before its start, and after its stop; in any other state it is."""
    life = NodeLife(lambda state: None)
    for state in NodeState:
        life.become(state)
        if state is NodeState.STOPPED:
            with pytest.raises(PoolClosedError, match="not started, or stopped"):
                life.check_running()
        else:
            life.check_running()
