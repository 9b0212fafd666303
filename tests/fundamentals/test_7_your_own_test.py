"""7. Testing your own code.

Your code takes a pool and connections. In a test it gets those of a fake cluster, and runs as it
does in production. You install ``cluster-pool[testing]`` and pytest, and nothing else.
"""

from collections.abc import Callable

from cluster_pool import ClusterPool, Connection
from cluster_pool.testing import FakeCluster

# -- your code --------------------------------------------------------------------------------


def join_chat(pool: ClusterPool, connection: Connection) -> None:
    """Broadcast what this client says; ``/who`` tells it who is there."""

    @connection.on("message")
    async def said(message: str | bytes) -> None:
        if message == "/who":
            ids = [member.id async for member in pool.members(connection.namespace)]
            await connection.send(", ".join(sorted(ids)))
        else:
            text = f"{connection.id}: {message!s}"
            await pool.broadcast_message(connection.namespace, text)


# -- its tests --------------------------------------------------------------------------------


def test_everyone_gets_each_message(run_cluster: Callable[..., None]) -> None:
    """The fixture ``run_cluster`` runs a coroutine with a cluster; no async plugin is needed."""

    async def check(cluster: FakeCluster) -> None:
        alice, _ = await cluster.connect(0, "room", "alice")
        _, bob_websocket = await cluster.connect(1, "room", "bob")
        join_chat(cluster[0], alice)

        # A fake WebSocket has no client that speaks. `feed` hands in what it would say.
        await alice.feed("Hi!")

        assert await bob_websocket.wait_sent() == ["alice: Hi!"]

    run_cluster(check)


def test_the_command_who_lists_the_members_of_all_nodes(run_cluster: Callable[..., None]) -> None:
    """The answer goes to the one who asked."""

    async def check(cluster: FakeCluster) -> None:
        alice, alice_websocket = await cluster.connect(0, "room", "alice")
        _, bob_websocket = await cluster.connect(1, "room", "bob")
        join_chat(cluster[0], alice)

        await alice.feed("/who")

        assert await alice_websocket.wait_sent() == ["alice, bob"]
        assert bob_websocket.sent == []

    run_cluster(check)


def test_a_member_that_leaves_is_not_listed(run_cluster: Callable[..., None]) -> None:
    """Three nodes this time."""

    async def check(cluster: FakeCluster) -> None:
        alice, alice_websocket = await cluster.connect(0, "room", "alice")
        bob, _ = await cluster.connect(2, "room", "bob")
        join_chat(cluster[0], alice)

        await cluster[2].remove_connection(bob)
        await alice.feed("/who")

        assert await alice_websocket.wait_sent() == ["alice"]

    run_cluster(check, nodes=3)
