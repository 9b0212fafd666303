"""Messages that a node finds after a cut: each is given once, and counts right in the gap."""

import asyncio

import pytest

from cluster_pool import SendResult
from tests.cluster.gaps import far_node, gaps_of, numbers_in
from tests.clusters import Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually

pytestmark = pytest.mark.real


async def lease_over(server: RedisServer, pool: Pool) -> None:
    """Wait until the lease of a node is over by the time of Redis."""
    leases, incarnation = pool._parts.setup.keys.leases, pool.statistics()["incarnation"]

    async def over() -> bool:
        async with server.client() as client:
            ends, (seconds, _) = await client.zscore(leases, incarnation), await client.time()
        return ends is None or ends < 1000 * seconds

    await eventually(over, 60)


@async_test
async def test_messages_heard_before_a_cut_come_once(own_server: RedisServer) -> None:
    """Also if they are handled only when the history was read."""
    async with far_node(own_server) as (proxy, far, publisher):
        gaps, inbox = gaps_of(far), far._parts.backplane.inbox
        alice = await far.host("room:7", "alice", user="42")
        await publisher.broadcast_message("room:7", "0")
        await alice.wait_sent(1, 30)
        await far._parts.dispatcher.stop()
        for number in range(1, 6):
            await publisher.send("room:7", "alice", str(number))
        await eventually(lambda: len(inbox) >= 5, 30)
        await proxy.refuse()
        for number in range(6, 9):
            await publisher.send("room:7", "alice", str(number))
        await proxy.accept()
        await eventually(lambda: len(inbox) >= 13, 30)
        far._parts.dispatcher.start()
        await publisher.send("room:7", "alice", "9")
        await eventually(lambda: "9" in alice.sent, 30)
        assert numbers_in(alice) == list(range(10))
        await asyncio.sleep(1.1)  # a gap is told once a second
        assert gaps == []


@async_test
async def test_parked_messages_do_not_count_as_found(own_server: RedisServer) -> None:
    """They were published to nobody, so others that were missed are in the gap."""
    async with far_node(own_server) as (proxy, far, publisher):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice", user="42")
        await far.host("lobby", "carol", user="43")
        await publisher.broadcast_message("room:7", "0")
        await alice.wait_sent(1, 30)
        proxy.hold()
        for _ in range(3):
            assert await publisher.send("lobby", "carol", "lost") is SendResult.ROUTED
        await lease_over(own_server, far)
        for number in range(3):
            answer = await publisher.send("room:7", "alice", str(number))
            assert answer is SendResult.PARKED
        await proxy.cut()
        proxy.heal()
        await eventually(lambda: alice.closed, 60)
        await eventually(lambda: sum(sum(gap.namespaces.values()) for gap in gaps) >= 3, 60)
        assert all(gap.exact for gap in gaps)
        assert sum(sum(gap.namespaces.values()) for gap in gaps) == 3
