"""The demo's witness publishes and counts as redis-cli would."""

from cluster_pool import ClusterPool, Connection
from cluster_pool.backplane.outsider import Outsider
from cluster_pool.testing import FAST, FakeWebSocket
from tests.servers import RedisServer
from tests.support import async_test, eventually


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
