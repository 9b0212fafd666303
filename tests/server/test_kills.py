"""Plain clients whose node is killed, or whose network is cut, come back to another one."""

import asyncio
import itertools
import signal

import pytest

from cluster_pool import ClusterPool
from cluster_pool.cluster import handovers
from tests.server.framing import node
from tests.server.moving import ROOM, ROOMS, Mover, Sender
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, in_thread

pytestmark = pytest.mark.real

LONG = 60.0
"""Seconds of patience with a former owner, which no test may wait for."""


def once(got: list[str]) -> list[str]:
    """Messages without repeats: each time some last ones come again, from an earlier one on."""
    kept: list[str] = []
    for message in got:
        if not kept or int(message) > int(kept[-1]):
            kept.append(message)
    return kept


async def heard(pool: ClusterPool, movers: list[Mover]) -> None:
    """Wait until each client is a member of a node, and has a message."""
    await eventually(lambda: pool.statistics()["connections"] == len(movers), 30)


@async_test
async def test_clients_of_a_killed_node_lose_nothing(
    own_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some messages may come twice; nobody waits for the dead node."""
    monkeypatch.setattr(handovers, "PATIENCE", LONG)
    arguments = ("--history", "room:*=1000", "--node-id", "a")
    async with node(own_server, "b", history=ROOMS) as (pool, server):
        process = await in_thread(lambda: NodeProcess(own_server.url, *arguments))
        with process:
            movers = [Mover(f"client-{number}", [process, server]) for number in range(10)]
            sender = Sender(lambda text: pool.broadcast_message(ROOM, text))
            await eventually(lambda: all(mover.got for mover in movers), 30)
            await eventually(lambda: all(int(mover.got[-1]) > 300 for mover in movers), 30)
            process.signal(signal.SIGKILL)
            async with asyncio.timeout(LONG / 2):
                await heard(pool, movers)
            sent = await sender.end()
            await eventually(lambda: all(mover.got[-1:] == sent[-1:] for mover in movers), 30)
            for mover in movers:
                first = int(mover.got[0])
                assert once(mover.got) == sent[first - 1 :]
                assert all(
                    int(latter) <= int(former) + 1
                    for former, latter in itertools.pairwise(mover.got)
                )
                connection = pool.get_connection(ROOM, mover.id)
                assert connection is not None
                assert connection.recovered
                await mover.end()
