"""A node that stops as others do: ``at-once``, or ``per-node`` at a pace of its own.

Everything but the stop is ``cluster-pool serve``. Run as ``python -m tools.bench.rolling.node WAY
REDIS NODE-ID PORT AGENT-PORT RATE ANNOUNCE``.
"""

import asyncio
import json
import sys

from cluster_pool import ClusterPool
from cluster_pool.cluster.signals import Signals
from cluster_pool.local.drain_run import LocalBudget
from cluster_pool.server.node import NodeServer


async def main(way: str, redis: str, name: str, *numbers: str) -> None:
    """Live until SIGTERM."""
    port, agent_port, rate, announce = map(float, numbers)
    pool = ClusterPool(redis, node_id=name)
    await pool.start()
    server = NodeServer(pool, port=int(port), agent_port=int(agent_port))
    await server.start()
    with Signals() as signals:
        print(json.dumps({"event": "listening", "port": server.port}), flush=True)
        await signals.next()
        if way == "per-node":
            pool._parts.drains._budget = LocalBudget()  # type: ignore[assignment]  # for comparison
            await pool.drain_connections(rate, announce=announce, force=True)
        await server.stop()


if __name__ == "__main__":
    work = main(*sys.argv[1:])
    try:
        import uvloop
    except ImportError:
        asyncio.run(work)
    else:
        uvloop.run(work)
