"""Foreign clients of one Redis: a monitor is no node; a second user of our names is noticed."""

import pytest
from redis.asyncio import Redis

from cluster_pool import NodeUnreachableError, SendResult
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool
from tests.servers import CLUSTER, RedisServer
from tests.support import async_test, eventually


@async_test
async def test_a_pattern_subscriber_does_not_count_as_a_node(backend: Backend) -> None:
    """A monitor receives everything, but a message that no node received counts as unheard."""
    publisher = backend.publisher()
    async with (
        backend.pools() as (one, two),
        publisher,
        backend.client() as client,
        client.pubsub() as monitor,
    ):
        await two.host("n", "alice")
        await monitor.psubscribe("*")
        assert await anext(monitor.listen())
        assert await one.send("n", "alice", "heard") is SendResult.ROUTED
        assert await one.broadcast_message("n", "heard") == 1
        assert await one.broadcast_message("nobody", "heard by the monitor alone") == 0
        assert await publisher.close_all("nobody") == 0
        with pytest.raises(NodeUnreachableError, match="nobody listens"):
            await one.drain_node("nobody", force=True)
        subscriber = two._parts.backplane.topology.of("n").subscriptions._subscriber
        assert subscriber is not None
        channel = backend.routed_channel("n", two).encode()
        if backend.clustered:  # as a server that ends it, which says so
            subscriber.put(b"SUNSUBSCRIBE", channel)
        else:
            own = two._parts.backplane.identity.own_channel.encode()  # it is probed over this
            subscriber.unsubscribe([channel, own])
            (confirmed,) = subscriber.confirmed([f"{backend.prefix}:{{last}}".encode()])
            assert await confirmed
            assert await one.send("n", "alice", "x") is SendResult.UNREACHABLE
            await eventually(lambda: two.statistics()["generations"] == 2 and two.ready)

        async def delivered() -> bool:
            return await one.send("n", "alice", "x", confirm=True) is SendResult.DELIVERED

        await eventually(delivered)


@async_test
async def test_a_second_node_with_the_same_id_is_noticed_and_logged(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One prefix in two databases: two nodes with one id, of which neither sees the other's lease.

    A probe that a process under this id left behind when it died is no namesake yet.
    """
    if own_server.flavour == CLUSTER:
        pytest.skip("a cluster has no databases in which one prefix could be used twice")

    def pool(database: int, node_id: str) -> Pool:
        url = f"{own_server.url}{'&db=' if '?' in own_server.url else '/'}{database}"
        return Pool(url, node_id=node_id, prefix="cluster_pool:env", timing=FAST)

    def said() -> list[str]:
        return [line for line in caplog.messages if "another process is node" in line]

    async with pool(0, "a") as one, pool(1, "b") as other:
        probe = b"\xc1\x011 1 0 predecessor 1\n"
        async with Redis.from_url(f"unix://{own_server.path}") as client:
            assert await client.publish("cluster_pool:env:{~}:node:a", probe) == 1
        await eventually(lambda: one.statistics()["namesakes"] == 1)
        assert other.statistics()["namesakes"] == 0
        async with pool(1, "a") as two:
            await eventually(lambda: min(p.statistics()["namesakes"] for p in (one, two)) >= 4)
            assert [line.split("'")[1] for line in said()] == ["a", "a"], "each of them, once"
        assert other.statistics()["namesakes"] == 0
