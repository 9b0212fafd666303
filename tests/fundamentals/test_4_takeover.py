"""4. An id has one owner in the whole cluster.

To own an id, a node *claims* it in Redis. A second claim of the same id takes it over, or is
rejected: you choose.
"""

import pytest

from cluster_pool import IdTakenError, Member
from cluster_pool.testing import fake_cluster


async def test_a_newer_connection_takes_the_id_over() -> None:
    """The default: a client that lost its network and comes back does not meet its own ghost."""
    async with fake_cluster(nodes=2) as cluster:
        one, _ = cluster
        _, older_websocket = await cluster.connect(0, "room", "alice")
        _, newer_websocket = await cluster.connect(1, "room", "alice")

        # The older connection is closed with 4409, which tells its client not to come back.
        code, _ = await older_websocket.wait_closed()
        assert code == 4409

        # From now on the messages go to the newer one, from wherever they come.
        assert await one.locate("room", "alice") == Member("alice", "node-2")
        assert await one.send("room", "alice", "Hello", confirm=True)
        assert await newer_websocket.wait_sent() == ["Hello"]
        assert older_websocket.sent == []


async def test_a_late_release_does_not_touch_the_newer_connection() -> None:
    """A claim has a token; only its holder can release it."""
    async with fake_cluster(nodes=2) as cluster:
        one, two = cluster
        older, older_websocket = await cluster.connect(0, "room", "alice")
        await cluster.connect(1, "room", "alice")
        await older_websocket.wait_closed()

        await one.remove_connection(older)
        assert await two.locate("room", "alice") == Member("alice", "node-2")
        assert await two.count("room") == 1


async def test_the_newer_connection_can_be_rejected_instead() -> None:
    """With ``on_conflict="reject"`` the first one keeps the id as long as its client is there."""
    async with fake_cluster(nodes=2) as cluster:
        one, _ = cluster
        _, websocket = await cluster.connect(0, "room", "alice")
        with pytest.raises(IdTakenError):
            await cluster.connect(1, "room", "alice", on_conflict="reject")
        assert await one.locate("room", "alice") == Member("alice", "node-1")
        assert websocket.closed is None
