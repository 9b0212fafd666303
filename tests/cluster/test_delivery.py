"""Items applied to the connections of a node, without a bus."""

import pytest

from cluster_pool.backplane.inbox import Heard
from cluster_pool.cluster.dispatcher import NO_MARK
from cluster_pool.cluster.node import Node
from cluster_pool.core import envelope
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.message import Outgoing
from tests.clusters import Backend, Pool, claim_of
from tests.support import async_test


def delivery_of(pool: Pool) -> tuple[Node, object]:
    """A node, and the object to which its dispatcher gives items."""
    assert pool._parts is not None
    return pool._parts, pool._parts.dispatcher._handler


@async_test
async def test_messages_go_to_the_claim_they_were_routed_for() -> None:
    """A message that finds no connection is counted, and the rest of its run is delivered."""
    async with Backend(None).pools(1) as (one,):
        alice = await one.host("n", "alice")
        _, delivery = delivery_of(one)
        run = [
            ("", [envelope.TEXT, "n", id, b"x"], Outgoing(True, text))
            for id, text in (("nobody", b"0"), ("alice", b"1"), ("alice", b"2"))
        ]
        delivery.hand_out(run)
        assert await alice.wait_sent(2) == ["1", "2"]
        assert one.statistics()["undelivered"] == 1


@async_test
async def test_a_control_item_waits_for_the_messages_before_it() -> None:
    """Messages in a row are written together; a close follows them; messages behind it are late."""
    async with Backend(None).pools(1) as (one,):
        alice, bob = await one.host("n", "alice"), await one.host("n", "bob")
        node, delivery = delivery_of(one)
        items = (
            envelope.broadcast(True, b"1")
            + envelope.broadcast(True, b"2", ["bob"])
            + envelope.broadcast(True, b"3")
            + envelope.close_all(4000, "over")
            + envelope.broadcast(True, b"4")
        )
        channel = node.setup.keys.channel("n")
        await delivery.broadcast(Heard(channel, 1, b"-" + items, 1, "sender"))
        assert await alice.wait_closed() == await bob.wait_closed() == (4000, "over")
        assert (alice.sent, bob.sent) == (["1", "2", "3"], ["1", "3"])


@pytest.mark.parametrize(
    "item",
    [
        *([18, b"x"], [18, b"x", "a"], [18, b"x", 1, ""], [18, b"x", "", ""], [18, b"x", "a", 1]),
        *([18, b"\xff", "a", ""], [18, "x", "a", ""], [19, b"x", "a", "", 1], [20, b"x"]),
    ],
)
@async_test
async def test_an_item_of_a_client_that_cannot_be_read_is_dropped(
    backend: Backend, item: list[object]
) -> None:
    """So is one of a kind that comes with a later version; what was before it is delivered."""
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        items = envelope.broadcast(True, b"before") + envelope.pack(item)
        channel = f"{backend.prefix}:{{n}}"
        await backend.publish(channel, envelope.empty_envelope("other 1") + items)
        await one.broadcast_message("n", "behind")
        assert await alice.wait_sent(2) == ["before", "behind"]
        assert one.statistics()["dropped_garbage"] == 1


@async_test
async def test_malformed_receipt_delivers_nothing() -> None:
    """The item is broken as a whole; a good one of a client without pongs is answered at once."""
    async with Backend(None).pools(1) as (one,):
        alice = await one.host("n", "alice")
        _, delivery = delivery_of(one)
        claim = str(claim_of(alice))
        to = ["publisher", 1, "start"]
        item = [envelope.TEXT, "n", "alice", b"x", [], to]
        with pytest.raises(BrokenEnvelopeError):
            delivery.execute(envelope.TEXT, claim, [*item, -1], NO_MARK)
        assert alice.sent == []
        delivery.execute(envelope.TEXT, claim, [*item, 1000], NO_MARK)
        assert await alice.wait_sent(1) == ["x"]
