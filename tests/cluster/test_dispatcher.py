"""Received items are carried out once and in order, also when one of them fails."""

import asyncio

import pytest

from cluster_pool import Connection, SendResult
from cluster_pool.backplane import script_calls
from cluster_pool.backplane.script_calls import Envelope
from cluster_pool.cluster import delivery
from cluster_pool.cluster.dispatcher import RUN
from cluster_pool.core import envelope
from cluster_pool.core.envelope import ReplyTo
from cluster_pool.core.message import Outgoing
from cluster_pool.local.outbox import deliver
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend
from tests.support import async_test, eventually


@async_test
async def test_messages_and_closes_of_one_envelope_keep_their_order(backend: Backend) -> None:
    """Messages are delivered in runs; other items wait for those before them, and none passes."""
    async with backend.pools() as (one, two):
        alice = await two.host("n", "alice")
        bob = await two.host("n", "bob")
        count = 2 * RUN + RUN // 2
        sent = [one.send_nowait("n", "alice", str(number)) for number in range(count)]
        last = asyncio.create_task(one.send_then_close("n", "alice", "last", 4000))
        after = asyncio.create_task(one.send("n", "bob", "after"))
        assert await asyncio.gather(*sent, last, after) == [SendResult.ROUTED] * (count + 2)
        assert await alice.wait_closed() == (4000, "")
        assert alice.sent == [*map(str, range(count)), "last"]
        assert await bob.wait_sent() == ["after"]


@async_test
async def test_an_item_that_fails_makes_no_other_arrive_twice(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An internal error within a run is counted; the items before it are not repeated."""

    def faulty(connection: Connection, message: Outgoing) -> SendResult:
        if connection.id == "b":
            raise RuntimeError("a fault")
        return deliver(connection, message)

    monkeypatch.setattr(delivery, "deliver", faulty)
    async with backend.pools() as (one, two):
        sockets: list[FakeWebSocket] = [await two.host("n", id) for id in ("a", "b")]
        before = [str(number) for number in range(RUN - 1)]
        sent = [one.send_nowait("n", "a", text) for text in before]
        sent.append(one.send_nowait("n", "b", "the last of the run"))
        assert await asyncio.gather(*sent) == [SendResult.ROUTED] * RUN
        await eventually(lambda: two.statistics()["dropped_garbage"] == 1)
        assert await one.send("n", "a", "again") is SendResult.ROUTED
        assert await sockets[0].wait_sent(RUN) == [*before, "again"]


@async_test
async def test_an_answer_to_another_start_is_ignored(backend: Backend) -> None:
    """Node id and number may be the same in a process that was forked, restarted or cut off."""
    async with backend.pools() as (one, two):
        await two.host("n", "alice")
        await two._parts.dispatcher.stop()  # it hears, and says nothing
        sent = asyncio.create_task(one.send("n", "alice", "x", confirm=True, timeout=20))
        (request,) = await eventually(lambda: list(one._parts.replies._waiting))
        deadline = asyncio.get_running_loop().time() + 20
        for start in ("other", "", one._parts.backplane.identity.start):
            assert not sent.done()
            to = ReplyTo("node-1", request, start)
            await two._parts.backplane.outbound.send_to_node(
                "node-1", to.start, envelope.reply(to, SendResult.REFUSED), deadline
            )
            await one.send("n", "nobody", "a message behind it")
        assert await sent is SendResult.REFUSED
        assert one.statistics()["dropped_garbage"] == 0


@async_test
async def test_only_the_owner_of_the_claim_answers_a_confirmed_send(backend: Backend) -> None:
    """A node that hears the channel only because it has the same node id does not answer."""
    async with backend.pools() as (one, two):
        loop = asyncio.get_running_loop()
        word = one._parts.replies._waiting[7] = loop.create_future()
        item = envelope.targeted(
            True,
            "n",
            "alice",
            b"x",
            reply=ReplyTo("node-1", 7, one._parts.backplane.identity.start),
        )
        channel, sender = (
            two._parts.backplane.identity.own_channel,
            one._parts.backplane.shard.sender,
        )
        for count, start in enumerate(("other", two._parts.backplane.identity.start), 1):
            assert not word.done()
            routed = b"\x92" + envelope.pack(f"{start}.0:1:1") + item
            told = Envelope(channel, "", 2**52, 1, routed)
            call = script_calls.publish(
                one._parts.backplane.setup.keys, sender=sender, counted_by="", envelopes=[told]
            )
            await one._parts.backplane.shard.script(loop.time() + 20, call)
            await eventually(lambda count=count: two.statistics()["undelivered"] == count)
            await one.send("n", "nobody", "time for an answer")
        assert await word is SendResult.ABSENT
