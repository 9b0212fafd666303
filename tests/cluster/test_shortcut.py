"""The way to members of the same node that needs no Redis."""

import pytest

from cluster_pool import PoolClosedError, SendResult
from tests.clusters import Backend
from tests.support import async_test, eventually


@async_test
async def test_members_here_are_sent_to_while_this_node_surely_owns_them() -> None:
    """Not once its lease is over; after the stop every send says that the pool is closed."""
    async with Backend(None).pools(1) as (one,):
        alice = await one.host("n", "alice")
        assert one._parts is not None
        shortcut = one._parts.sending._shortcut
        assert shortcut is not None
        assert shortcut.send("n", "alice", True, b"x", None) is SendResult.DELIVERED
        assert shortcut.send("n", "bob", True, b"x", None) is None
        one._parts.lease._until = 0.0  # another node may have the id by now
        assert shortcut.send("n", "alice", True, b"y", None) is None
        assert shortcut.close("n", "alice", 4000, "") is None
        assert await alice.wait_sent() == ["x"]
    with pytest.raises(PoolClosedError):
        shortcut.close("n", "alice", 4000, "")


@async_test
async def test_a_send_waits_behind_a_broadcast_that_has_not_come_back() -> None:
    """It would overtake the broadcast; once that has been heard, local sends are direct again."""
    async with Backend(None).pools(1) as (one,):
        alice = await one.host("n", "alice")
        assert one._parts is not None
        shortcut = one._parts.sending._shortcut
        assert shortcut is not None
        broadcast = one._parts.sending.broadcast("n", "1", (), (), False, None)
        assert shortcut.send("n", "alice", True, b"2", None) is None
        await broadcast
        await alice.wait_sent(1)
        await eventually(lambda: shortcut.send("n", "alice", True, b"3", None))
        assert (await alice.wait_sent(2))[:2] == ["1", "3"]
