"""2. A cluster: two nodes that share a Redis.

A *node* is one running process with a ``ClusterPool``. Its connections are its own; Redis knows
which node owns which id, and carries messages between nodes. Here two nodes live in one event loop
and share one fakeredis server.
"""

from fakeredis import FakeAsyncRedis, FakeServer

from cluster_pool import ClusterPool, Connection, Member, Publisher
from cluster_pool.testing import FakeWebSocket, fake_cluster


async def test_a_message_reaches_a_connection_of_another_node() -> None:
    """The sender need not know where the id is."""
    # A pool takes a URL, such as "redis://localhost:6379", or a redis-py client.
    server = FakeServer()
    async with (
        ClusterPool(FakeAsyncRedis(server=server), node_id="node-1") as one,
        ClusterPool(FakeAsyncRedis(server=server), node_id="node-2") as two,
    ):
        websocket = FakeWebSocket()
        await two.new_connection(Connection("alice", "room", websocket))

        assert await one.send("room", "alice", "Hello from node-1")
        assert await websocket.wait_sent() == ["Hello from node-1"]


async def test_the_cluster_knows_its_members() -> None:
    """Any node can ask who is there, and where."""
    # `fake_cluster` makes what the test above made by hand; `connect` makes a member of a node.
    async with fake_cluster(nodes=2) as cluster:
        one, two = cluster
        await cluster.connect(0, "room", "alice")
        await cluster.connect(1, "room", "bob")

        assert await one.count("room") == 2
        assert {member async for member in two.members("room")} == {
            Member("alice", "node-1"),
            Member("bob", "node-2"),
        }
        assert await one.locate("room", "bob") == Member("bob", "node-2")
        assert await one.locate("room", "carol") is None
        assert {node.id for node in await two.nodes()} == {"node-1", "node-2"}


async def test_a_broadcast_reaches_every_node_that_has_members() -> None:
    """It goes through Redis, so that all members get all broadcasts in one order."""
    async with fake_cluster(nodes=3) as cluster:
        _, alice = await cluster.connect(0, "room", "alice")
        _, bob = await cluster.connect(1, "room", "bob")

        # The answer is the number of nodes that heard it. The third has no member, and is not
        # disturbed.
        assert await cluster[2].broadcast_message("room", "Hello all") == 2
        assert await alice.wait_sent() == ["Hello all"]
        assert await bob.wait_sent() == ["Hello all"]


async def test_redis_cli_can_broadcast() -> None:
    """A plain PUBLISH to the namespace's channel is a broadcast, from any language."""
    async with fake_cluster(nodes=2) as cluster:
        _, alice = await cluster.connect(0, "room", "alice")
        _, bob = await cluster.connect(1, "room", "bob")

        await cluster.publish("cluster_pool:{room}", "Hello world!")

        assert await alice.wait_sent() == ["Hello world!"]
        assert await bob.wait_sent() == ["Hello world!"]


async def test_a_publisher_sends_without_holding_connections() -> None:
    """For a worker, a view or a script. Without an event loop, take a ``SyncPublisher``."""
    async with fake_cluster(nodes=2) as cluster:
        _, alice = await cluster.connect(1, "room", "alice")

        async with Publisher(FakeAsyncRedis(server=cluster.server)) as publisher:
            assert await publisher.send("room", "alice", "Your report is ready")
            assert await publisher.count("room") == 1

        assert await alice.wait_sent() == ["Your report is ready"]
