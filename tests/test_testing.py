"""The helpers for users' tests work as docs/testing.md says."""

from cluster_pool import SendResult
from cluster_pool.testing import fake_cluster
from tests.support import async_test


@async_test
async def test_a_fake_cluster_runs_a_whole_test() -> None:
    """Two nodes, members on both, sends across, a raw publish."""
    async with fake_cluster() as cluster:
        one, two = cluster
        _, alice = await cluster.connect(0, "default", "alice")
        _, bob = await cluster.connect(1, "default", "bob")
        assert await one.send("default", "bob", "hi", confirm=True) is SendResult.DELIVERED
        assert await cluster.publish("cluster_pool:{default}", "Hello world!") == 2
        assert await bob.wait_sent(2) == ["hi", "Hello world!"]
        assert await alice.wait_sent() == ["Hello world!"]
        assert await two.close("default", "alice", 4000, "bye")
        assert await alice.wait_closed() == (4000, "bye")
