"""What a node is sent is carried out once, in order, whatever becomes of one item."""

import asyncio

import pytest

from cluster_pool import Connection, SendResult
from cluster_pool.cluster.router import RUN
from cluster_pool.core.message import Outgoing
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend
from tests.support import async_test, eventually


@async_test
async def test_messages_and_closes_of_one_envelope_keep_their_order(backend: Backend) -> None:
    """Messages are delivered in runs; what is none waits for those before it, and is not passed."""
    async with backend.pools() as (one, two):
        alice = await two.join("n", "alice")
        bob = await two.join("n", "bob")
        count = 2 * RUN + RUN // 2
        sent = [one.send_nowait("n", "alice", str(number)) for number in range(count)]
        last = asyncio.create_task(one.send_then_close("n", "alice", "last", 4000))
        after = asyncio.create_task(one.send("n", "bob", "after"))
        assert await asyncio.gather(*sent, last, after) == [SendResult.ROUTED] * (count + 2)
        assert await alice.wait_closed() == (4000, "")
        assert alice.sent == [*map(str, range(count)), "last"]
        assert await bob.wait_sent() == ["after"]


@async_test
async def test_one_that_cannot_be_delivered_makes_no_other_arrive_twice(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fault of ours in the middle of a run is counted; what was before it is not done again."""
    deliver = Connection.deliver

    def faulty(connection: Connection, message: Outgoing) -> SendResult:
        if connection.id == "b":
            raise RuntimeError("a fault")
        return deliver(connection, message)

    monkeypatch.setattr(Connection, "deliver", faulty)
    async with backend.pools() as (one, two):
        sockets: list[FakeWebSocket] = [await two.join("n", id) for id in ("a", "b")]
        before = [str(number) for number in range(RUN - 1)]
        sent = [one.send_nowait("n", "a", text) for text in before]
        sent.append(one.send_nowait("n", "b", "the last of the run"))
        assert await asyncio.gather(*sent) == [SendResult.ROUTED] * RUN
        await eventually(lambda: two.statistics()["dropped_garbage"] == 1)
        assert await one.send("n", "a", "again") is SendResult.ROUTED
        assert await sockets[0].wait_sent(RUN) == [*before, "again"]
