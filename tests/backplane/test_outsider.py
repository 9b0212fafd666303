"""The demo's witness publishes and counts as redis-cli would."""

from cluster_pool import ClusterPool, Connection
from cluster_pool.backplane.outsider import Outsider
from cluster_pool.testing import FAST, FakeWebSocket
from tests.clusters import Backend
from tests.servers import Cluster, RedisServer
from tests.support import async_test, eventually


@async_test
async def test_an_outsider_speaks_to_every_primary_of_a_cluster(shared_cluster: Cluster) -> None:
    """It publishes with SPUBLISH, and finds keys of any slot."""
    backend, port = Backend(shared_cluster, "cluster_pool:outside"), shared_cluster.nodes[0].port
    async with (
        Outsider.at(f"redis+cluster://127.0.0.1:{port}", backend.prefix) as outsider,
        backend.pools(1) as (pool,),
    ):
        names = [f"room{at}" for at in range(6)]
        members = [await pool.host(name, "alice") for name in names]
        assert outsider.publish_command == "SPUBLISH"
        for name, member in zip(names, members, strict=True):
            await outsider.publish(name, "hi")
            await eventually(lambda member=member: member.sent == ["hi"])
            assert await outsider.registered(name) == 1
        await pool.stop()
        assert await outsider.permanent_keys() == []
        with backend.sync_client() as client:
            kept = {f"{backend.prefix}:{{{name}}}:left" for name in names}
            for key in kept:
                client.set(key, "x")
            assert set(await outsider.permanent_keys()) == kept
            for key in kept:
                client.delete(key)


@async_test
async def test_an_outsider_publishes_counts_and_finds_leaked_keys(own_server: RedisServer) -> None:
    """A message reaches the members; registrations are counted; a key without a ttl is found."""
    prefix = "cluster_pool:outside"
    async with (
        Outsider.at(own_server.url, prefix) as outsider,
        ClusterPool(own_server.url, prefix=prefix, timing=FAST) as pool,
    ):
        websocket = FakeWebSocket()
        await pool.new_connection(Connection("alice", "room", websocket))
        assert outsider.channel("room") == "cluster_pool:outside:{room}"
        assert await outsider.registered("room") == 1
        assert await outsider.registered("elsewhere") == 0
        await outsider.publish("room", "hi")
        await eventually(lambda: websocket.sent == ["hi"])
        await pool.stop()
        assert await outsider.permanent_keys() == []
        own_server.command("SET", "cluster_pool:outside:left over", "x")
        own_server.command("SET", "cluster_pool:elsewhere", "x")
        assert await outsider.permanent_keys() == ["cluster_pool:outside:left over"]
