"""3. What a send answers, and in which order messages arrive.

A send to an id of another node is one call of a script in Redis: the script looks the owner up, and
publishes the message on the owner's channel. The answer says how far the message came.
"""

import pytest

from cluster_pool import BackplaneUnavailableError, SendResult
from cluster_pool.testing import fake_cluster


async def test_routed_and_delivered() -> None:
    """ROUTED: the owner's node has it. DELIVERED: it is in the outbox of an open connection."""
    async with fake_cluster(nodes=2) as cluster:
        one, two = cluster
        await cluster.connect(1, "room", "alice")

        assert await one.send("room", "alice", "1") is SendResult.ROUTED
        # `confirm=True` waits for the word of the owner.
        assert await one.send("room", "alice", "2", confirm=True) is SendResult.DELIVERED
        # The owner itself knows at once, and asks nobody.
        assert await two.send("room", "alice", "3") is SendResult.DELIVERED


async def test_absent() -> None:
    """There is no such member. The answer is falsy, as all are by which nobody got the message."""
    async with fake_cluster(nodes=2) as cluster:
        result = await cluster[0].send("room", "nobody", "?")
        assert result is SendResult.ABSENT
        assert not result


async def test_a_message_and_a_close_go_together() -> None:
    """The client gets the message, then the close, and nothing behind it."""
    async with fake_cluster(nodes=2) as cluster:
        one, _ = cluster
        _, websocket = await cluster.connect(1, "room", "alice")
        assert await one.send_then_close("room", "alice", "Bye", 4000, "the end", confirm=True)
        assert not await one.send("room", "alice", "too late", confirm=True)
        assert await websocket.wait_closed() == (4000, "the end")
        assert websocket.sent == ["Bye"]


async def test_messages_arrive_in_the_order_of_the_calls() -> None:
    """From one node to one connection, sends and broadcasts together."""
    async with fake_cluster(nodes=2) as cluster:
        one, _ = cluster
        _, alice = await cluster.connect(1, "room", "alice")

        # `send_nowait` queues a message and returns at once; the future that it gives has the
        # answer. Messages that are queued together travel together.
        first = one.send_nowait("room", "alice", "1")
        second = one.send_nowait("room", "alice", "2")
        await one.broadcast_message("room", "3")
        await one.send("room", "alice", "4")

        assert await alice.wait_sent(4) == ["1", "2", "3", "4"]
        assert [await first, await second] == [SendResult.ROUTED, SendResult.ROUTED]


async def test_without_redis_the_local_connections_are_still_there() -> None:
    """An outage closes nobody. What needs Redis raises in time; what does not, goes on."""
    async with fake_cluster(nodes=2) as cluster:
        one, _ = cluster
        _, alice = await cluster.connect(0, "room", "alice")
        await cluster.connect(1, "room", "bob")

        cluster.server.connected = False  # Redis is away
        assert await one.send("room", "alice", "from the same node") is SendResult.DELIVERED
        with pytest.raises(BackplaneUnavailableError):
            await one.send("room", "bob", "to the other node", timeout=0.5)
        assert await alice.wait_sent() == ["from the same node"]

        cluster.server.connected = True
        await one.wait_ready()
        assert await one.count("room") == 2
