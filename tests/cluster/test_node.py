"""The parts of a node and of a publisher: complete when they are made, idle until they start."""

import asyncio
from collections.abc import Callable

import pytest

from cluster_pool import NodeState, Publisher
from cluster_pool.backplane.backplane import Setup
from cluster_pool.cluster.hooks import Hooks
from cluster_pool.cluster.node import Node
from cluster_pool.cluster.publishing import Publishing
from cluster_pool.core.statistics import NO_SIZES
from cluster_pool.testing import FAST
from tests.clusters import Backend
from tests.support import async_test, eventually


def setup_of(backend: Backend) -> Setup:
    """The setup of a pool or publisher on a fake server."""
    return Setup.of(
        backend.redis(), prefix="p", limits=None, timing=FAST, secret=None, node_id="node-1"
    )


def node_of(setup: Setup) -> Node:
    """A node as a pool makes it."""
    hooks = Hooks(setup.timing, setup.counters)
    return Node(setup, hooks, headroom=100.0, takeover=True, oldest=False)


@pytest.mark.parametrize("make", [node_of, Publishing])
@async_test
async def test_parts_are_whole_and_do_nothing_before_the_start(
    make: Callable[[Setup], Node | Publishing],
) -> None:
    """No part is missing, no task runs, and Redis is not touched."""
    backend = Backend(None)
    before = len(asyncio.all_tasks())
    parts = make(setup_of(backend))
    missing = [name for name, part in vars(parts).items() if part is None]
    assert missing == []
    await asyncio.sleep(0.05)
    assert len(asyncio.all_tasks()) == before
    assert backend.keys() == {}
    await parts.stop()
    assert parts.over


@async_test
async def test_a_node_without_a_pool() -> None:
    """It starts, takes a lease, reports its state, and leaves nothing behind."""
    backend = Backend(None, "p")
    node = node_of(setup_of(backend))
    assert (node.ready, node.life.state) == (False, NodeState.STOPPED)
    assert set(node.sizes()) == set(NO_SIZES)
    await node.start(None)
    await eventually(lambda: node.ready)
    assert node.sizes()["incarnation"] == node.lease.incarnation != ""
    assert await node.directory.count("n", None) == 0
    await node.stop()
    assert (node.ready, node.over, node.life.state) == (False, True, NodeState.STOPPED)
    assert backend.leaked() == []


@async_test
async def test_each_start_has_parts_of_its_own() -> None:
    """Items that wait in the old parts cannot reach the new ones."""
    backend = Backend(None)
    async with backend.pools(1) as (one,):
        first = one._parts
        await one.stop()
        async with one:
            assert one._parts is not first
    publisher: Publisher = backend.publisher()
    async with publisher:
        first_parts = publisher._parts
    async with publisher:
        assert publisher._parts is not first_parts
