"""6. A drain: closing the connections of a node at a pace.

Clients that are closed come back at once. If a deploy closed everybody together, everybody would
come back together. Nodes that drain therefore share one budget of closes per second.
"""

import asyncio
import time

import pytest

from cluster_pool import NodeDrainingError
from cluster_pool.testing import fake_cluster


async def test_a_drain_closes_everyone_at_a_pace() -> None:
    """Twenty a second: ten connections take about half a second."""
    async with fake_cluster(nodes=2) as cluster:
        one, _ = cluster
        websockets = [
            (await cluster.connect(0, "room", f"client-{number}"))[1] for number in range(10)
        ]
        began = time.monotonic()

        # The message goes to each client ahead of its close.
        report = await one.drain_connections(20, "moving on")

        assert report.closed == 10
        assert time.monotonic() - began >= 0.4
        for websocket in websockets:
            assert websocket.sent == ["moving on"]
            code, _ = await websocket.wait_closed()
            assert code == 1012  # "service restart": clients come back, to another node


async def test_a_drained_node_takes_no_newcomers_until_it_is_activated() -> None:
    """A load balancer sees it at ``ready``; a client that comes all the same is refused."""
    async with fake_cluster(nodes=2) as cluster:
        one, _ = cluster
        await one.drain_connections(100)

        assert not one.ready
        with pytest.raises(NodeDrainingError):
            await cluster.connect(0, "room", "alice")

        await one.activate()
        await cluster.connect(0, "room", "alice")


async def test_a_node_can_be_drained_from_elsewhere() -> None:
    """``cluster-pool drain node-2`` does this: it tells the node, which then works by itself."""
    async with fake_cluster(nodes=2) as cluster:
        one, two = cluster
        _, alice = await cluster.connect(1, "room", "alice")

        # It returns when the drain has begun. By default the node first announces it for 5 s, so
        # that load balancers notice.
        await one.drain_node("node-2", 100, announce=0)

        assert (await alice.wait_closed())[0] == 1012
        assert not two.ready


async def test_the_budget_is_shared() -> None:
    """Two nodes that drain together close as many per second as one would alone."""
    async with fake_cluster(nodes=3) as cluster:
        for node in (0, 1):
            for number in range(5):
                await cluster.connect(node, "room", f"client-{node}-{number}")
        began = time.monotonic()

        reports = await asyncio.gather(
            cluster[0].drain_connections(20), cluster[1].drain_connections(20)
        )

        assert sum(report.closed for report in reports) == 10
        assert time.monotonic() - began >= 0.4  # ten closes, twenty a second
