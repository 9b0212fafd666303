"""The promises under faults, on real servers that are killed, frozen, flushed and cut off."""

import asyncio
import gc
import time
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from cluster_pool import BackplaneUnavailableError, Gap, Limits, SendResult, Timing
from cluster_pool.backplane import script_calls
from cluster_pool.backplane.command_connection import CommandConnection
from cluster_pool.backplane.script_calls import Envelope
from cluster_pool.backplane.shard import Shard
from cluster_pool.cluster.lease_keeper import Keep, LeaseKeeper
from cluster_pool.cluster.pool import ClusterPool
from cluster_pool.core import envelope
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually


def shard_of(pool: ClusterPool) -> Shard:
    """The shard that has the namespace ``n``."""
    return pool._parts.backplane.topology.of("n")


def cut_ear(pool: ClusterPool) -> None:
    """Abort the socket of a node that hears of ``n``, as a broken network path would."""
    subscriber = shard_of(pool).subscriptions._subscriber
    assert subscriber is not None
    writer = subscriber.connection._writer
    assert writer is not None
    writer.transport.abort()


async def agree(*pools: Pool) -> bool:
    """Whether the registry equals the union of what the pools hold."""
    registered = {member async for member in pools[0].members("n")}
    held = {(id, pool.node_id) for pool in pools for id in (pool._parts.table.namespace("n") or {})}
    return {(member.id, member.node) for member in registered} == held and (
        await pools[0].count("n") == len(held)
    )


@async_test
async def test_redis_is_killed_and_comes_back_empty(own_server: RedisServer) -> None:
    """No client is closed; sends fail in time; then the registry is whole again."""
    backend = Backend(own_server)
    async with backend.pools() as (one, two):
        alices = [await one.host("n", f"a{at}") for at in range(300)]
        bobs = [await two.host("n", f"b{at}") for at in range(300)]
        gaps: list[Gap] = []
        two.on("gap", gaps.append)
        await one.broadcast_message("n", "before")
        for socket in alices + bobs:
            assert await socket.wait_sent() == ["before"]
        own_server.kill()
        await eventually(lambda: not one.ready and not two.ready)
        assert await one.send("n", "a0", "local") is SendResult.DELIVERED
        began = time.monotonic()
        with pytest.raises(BackplaneUnavailableError) as caught:
            await one.send("n", "b0", "x", timeout=0.5)
        assert time.monotonic() - began < 1.5
        assert caught.value.maybe_executed is False
        with pytest.raises(BackplaneUnavailableError):
            await two.host("n", "new", timeout=0.2)
        own_server.start()
        await eventually(lambda: one.ready and two.ready, 7.5)
        await eventually(lambda: agree(one, two), 15)
        assert await one.send("n", "b0", "after", confirm=True) is SendResult.DELIVERED
        assert await one.broadcast_message("n", "all") == 2
        for socket in alices + bobs:
            await socket.wait_sent(2)
            assert socket.closed is None
        assert all(not gap.exact for gap in gaps)


@async_test
async def test_a_broadcast_that_was_lost_with_the_link_does_not_stop_local_sends(
    own_server: RedisServer,
) -> None:
    """A broadcast that was published but can no longer be received is not waited for."""
    async with Backend(own_server).pools(1) as (one,):
        alice = await one.host("n", "alice")
        subscriber = shard_of(one).subscriptions._subscriber
        assert subscriber is not None
        subscriber._on_message = lambda channel, payload: None
        assert await one.broadcast_message("n", "lost") == 1
        own_server.kill()
        await eventually(lambda: not shard_of(one).up)
        assert await one.send("n", "alice", "local") is SendResult.DELIVERED
        assert await alice.wait_sent() == ["local"]


@async_test
async def test_a_member_that_left_during_an_outage_is_released(own_server: RedisServer) -> None:
    """The release waits for Redis, and the last-one callback fires then, once."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        emptied: list[str] = []
        own_server.freeze()
        await eventually(lambda: not one.ready)
        with pytest.raises(BackplaneUnavailableError):
            await one.remove_connection(alice.connection, lambda: emptied.append("x"), timeout=0.3)
        own_server.thaw()
        await eventually(lambda: one.ready, 10)
        await eventually(lambda: emptied == ["x"], 10)
        assert await one.count("n") == 0
        assert one.get_connection("n", "alice") is None


@async_test
async def test_flushall_is_healed(own_server: RedisServer) -> None:
    """A registry that was wiped is whole again after two heartbeats, under new incarnations."""
    backend = Backend(own_server)
    async with backend.pools() as (one, two):
        for at in range(50):
            await one.host("n", f"a{at}")
            await two.host("n", f"b{at}")
        before = one.statistics()["incarnation"]
        own_server.command("FLUSHALL")
        assert await one.count("n") == 0
        await eventually(lambda: agree(one, two), 10)
        assert one.statistics()["incarnation"] != before
        assert one.statistics()["connections"] == 50


@async_test
async def test_a_member_that_leaves_during_a_rejoin_does_not_end_it(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The other members are registered at the first attempt; the one that left is not."""
    async with Backend(own_server).pools(1) as (one,):
        sockets = [await one.host("n", f"a{at}") for at in range(3)]
        alone = await one.host("m", "alone")
        leaving = [socket.connection._memberships[0] for socket in (sockets[0], alone)]
        namespaces = one._parts.ownership._namespaces
        add = namespaces.add_before_claims

        async def add_and_leave(*arguments: Any) -> None:
            await add(*arguments)
            for membership in leaving:
                one._parts.ownership._evict(membership)

        with patch.object(namespaces, "add_before_claims", add_and_leave):
            rejoins = one.statistics()["rejoins"]
            own_server.command("FLUSHALL")
            await eventually(lambda: one.statistics()["rejoins"] > rejoins and one.ready)
        assert sorted([member.id async for member in one.members("n")]) == ["a1", "a2"]
        assert await one.count("n") == 2
        assert await one.count("m") == 0
        assert "failed by itself" not in caplog.text


@async_test
async def test_a_comparison_whose_link_is_lost_leaves_nothing_behind(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Every query of the comparison is awaited, so that asyncio logs no unhandled error."""
    async with Backend(own_server).pools(1) as (one,):
        await one.host("n", "alice")
        links = one._parts.backplane.topology.current
        assert links is not None
        own_server.kill()
        await eventually(lambda: not shard_of(one).up)
        with pytest.raises(BackplaneUnavailableError):
            await one._parts.reconciler._suspects(links, ["n"])
        gc.collect()
        await asyncio.sleep(0)
        assert "never retrieved" not in caplog.text


@async_test
async def test_a_frozen_redis_is_noticed_and_survived(own_server: RedisServer) -> None:
    """Nodes become not ready and sends fail in time; after the thaw all works again."""
    backend = Backend(own_server)
    async with backend.pools() as (one, two):
        bob = await two.host("n", "bob")
        own_server.freeze()
        with pytest.raises(BackplaneUnavailableError) as caught:
            await one.send("n", "bob", "late", timeout=0.5)
        assert caught.value.maybe_executed
        await eventually(lambda: not one.ready and not two.ready, 10.5)
        own_server.thaw()
        await eventually(lambda: one.ready and two.ready, 10)
        await eventually(lambda: agree(one, two), 15)
        assert await one.send("n", "bob", "after", confirm=True) is SendResult.DELIVERED
        await bob.wait_sent()
        assert bob.sent == ["after"], "a send that timed out must not arrive after its deadline"
        assert bob.closed is None


@async_test
async def test_sends_that_wait_for_redis_are_bounded(own_server: RedisServer) -> None:
    """Above the limit a send is refused at once; waiting ones fail at their own deadlines."""
    backend = Backend(own_server)
    async with backend.pools(1, limits=Limits(pending_messages=50)) as (one,):
        own_server.freeze()
        sends = [
            asyncio.create_task(one.send("n", f"m{at}", "x", timeout=1.0)) for at in range(2000)
        ]
        results = await asyncio.gather(*sends, return_exceptions=True)
        own_server.thaw()
        kinds = [type(result).__name__ for result in results]
        assert set(kinds) == {"PendingLimitError", "BackplaneUnavailableError"}
        assert kinds.count("BackplaneUnavailableError") == 50, "in flight ones are counted, too"
        await eventually(lambda: one.ready and not one.statistics()["pending"], 10)
        assert await one.send("n", "m1", "x") is SendResult.ABSENT


@async_test
async def test_a_cut_subscription_reports_exactly_the_messages_it_missed(
    own_server: RedisServer,
) -> None:
    """Received messages plus reported gaps equal all that was sent; none is counted twice.

    Broadcasts and targeted sends that travel in batches are counted one by one, and a probe or a
    takeover that is missed is no message.
    """
    backend = Backend(own_server)
    async with backend.pools() as (one, two):
        await one.host("n", "alice")
        bob = await two.host("n", "bob")
        gaps: list[Gap] = []
        two.on("gap", gaps.append)
        broadcasts = sends = 0
        for _ in range(10):
            cut_ear(two)
            for _ in range(7):
                batch = [one.broadcast_message("n", f"b{broadcasts + at}") for at in range(3)]
                await asyncio.gather(*batch)
                broadcasts += 3
                routes = [one.send("n", "bob", f"s{sends + at}") for at in range(3)]
                results = await asyncio.gather(*routes)
                assert set(results) <= {SendResult.ROUTED, SendResult.UNREACHABLE}
                sends += results.count(SendResult.ROUTED)
            await one.host("n", "alice")
            await eventually(lambda: shard_of(two).up and two.ready)
        await one.broadcast_message("n", "end")
        await eventually(lambda: bob.sent[-1:] == ["end"])
        assert all(gap.exact for gap in gaps)
        for kind, name, total in (("b", "n", broadcasts), ("s", "", sends)):
            heard = [int(text[1:]) for text in bob.sent[:-1] if text[0] == kind]
            missed = sum(gap.namespaces.get(name, 0) for gap in gaps)
            assert heard == sorted(set(heard))
            if kind == "b":
                assert len(heard) + missed == total
                assert missed > 0, "the test cut nothing"


@async_test
async def test_a_namespace_left_during_a_reconnection_starts_a_new_count(
    own_server: RedisServer,
) -> None:
    """Messages published while the node has no member there are no gap when it has one again."""
    async with Backend(own_server).pools(timing=replace(FAST, linger=2.0)) as (one, two):
        await two.host("n", "alice")
        bob = await one.host("n", "bob")
        await two.broadcast_message("n", "before")
        await bob.wait_sent()
        gaps: list[Gap] = []
        one.on("gap", gaps.append)
        shard, channel = shard_of(one), one._setup.keys.channel("n")
        told = shard._state.state_lost
        asked: list[bool] = []

        async def tell_late(commands: CommandConnection) -> bool:
            asked.append(shard.listens(channel))
            await eventually(lambda: not shard.listens(channel))
            return await told(commands)

        await one.remove_connection(bob.connection)
        with patch.object(shard._state, "state_lost", tell_late):
            cut_ear(one)
            await eventually(lambda: asked and shard.up and one.ready)
        assert asked[0], "the namespace was left before the ear came back"
        for at in range(3):
            await two.broadcast_message("n", f"nobody {at}")
        bob = await one.host("n", "bob")
        await two.broadcast_message("n", "after")
        assert await bob.wait_sent() == ["after"]
        await asyncio.sleep(2 * one.timing.probe)  # gaps are told behind a probe
        assert gaps == []


@async_test
async def test_a_late_broadcast_from_a_lost_link_is_dropped_behind_a_local_send(
    own_server: RedisServer,
) -> None:
    """A local send did not wait for it, so delivering it afterwards would break their order."""
    async with Backend(own_server).pools() as (one, two):
        alice = await one.host("n", "alice")
        bob = await two.host("n", "bob")
        gaps: list[Gap] = []
        one.on("gap", gaps.append)
        shard, channel = shard_of(one), one._setup.keys.channel("n")
        old, told = shard.sender, shard._state.state_lost
        sent = asyncio.Event()

        async def carry(commands: CommandConnection) -> bool:
            await sent.wait()
            late = shard.redis_time() + 2_000_000
            item = envelope.broadcast(True, b"broadcast")
            carried = Envelope(channel, one._parts.backplane.setup.keys.members("n"), late, 1, item)
            call = script_calls.publish(
                one._parts.backplane.setup.keys, sender=old, counted_by="", envelopes=[carried]
            )
            await commands.script(call)
            return await told(commands)

        with patch.object(shard._state, "state_lost", carry):
            cut_ear(one)
            await eventually(lambda: not shard.up)
            assert await one.send("n", "alice", "send") is SendResult.DELIVERED
            sent.set()
            await eventually(lambda: shard.up and one.ready)
        assert await one.broadcast_message("n", "end") == 2
        assert await alice.wait_sent(2) == ["send", "end"]
        assert await bob.wait_sent(2) == ["broadcast", "end"]
        assert [gap.namespaces for gap in gaps] == [{"n": 1}]


@async_test
async def test_a_restart_from_a_snapshot_is_survived(own_server: RedisServer) -> None:
    """Redis comes back with an old state: the registry is repaired; no count is called exact."""
    backend = Backend(own_server)
    async with backend.pools() as (one, two):
        await one.host("n", "alice")
        bob = await two.host("n", "bob")
        gaps: list[Gap] = []
        two.on("gap", gaps.append)
        await one.broadcast_message("n", "1")
        await two.host("n", "old")
        own_server.save()
        await one.broadcast_message("n", "2")
        await two.host("n", "new")
        await two.remove_connection(two.get_connection("n", "old"))
        own_server.kill()
        await eventually(lambda: not one.ready and not two.ready)
        own_server.start(empty=False)
        await eventually(lambda: one.ready and two.ready, 15)
        await eventually(lambda: agree(one, two), 15)
        assert await one.count("n") == 3
        assert gaps, "what was published before the restart may have been lost"
        assert not any(gap.exact for gap in gaps)
        assert all(gap.cause for gap in gaps)
        gaps.clear()
        await one.broadcast_message("n", "3")
        await bob.wait_sent(3)
        cut_ear(two)
        await eventually(lambda: two.ready and two.statistics()["generation"] > 2)
        assert gaps == [], "nothing was missed since"


@async_test
async def test_a_snapshot_with_a_counter_that_had_expired_names_no_old_messages(
    own_server: RedisServer,
) -> None:
    """Those were sent before the namespace was joined, so nobody here has missed them."""
    backend = Backend(own_server)
    async with backend.pools() as (one, two):
        await one.host("n", "alice")
        for number in range(16):
            await one.broadcast_message("n", str(number))
        own_server.save()
        own_server.command("DEL", one._setup.keys.numbers(one._setup.keys.channel("n")))
        await two.host("n", "bob")
        gaps: list[Gap] = []
        two.on("gap", gaps.append)
        own_server.kill()
        await eventually(lambda: not one.ready and not two.ready)
        own_server.start(empty=False)
        await eventually(lambda: one.ready and two.ready, 15)
        await eventually(lambda: any("n" in gap.namespaces for gap in gaps), 15)
        assert [gap.namespaces["n"] for gap in gaps if "n" in gap.namespaces] == [0]
        assert not any(gap.exact for gap in gaps)


@async_test
async def test_a_full_inbox_is_reported_as_a_gap(own_server: RedisServer) -> None:
    """Messages dropped because this node is too slow are counted, named, and reported exactly."""
    backend = Backend(own_server)
    limits = Limits(inbox_bytes=20_000)
    async with backend.pools(limits=limits) as (one, two):
        bob = await two.host("n", "bob")
        gaps: list[Gap] = []
        two.on("gap", gaps.append)
        await two._parts.dispatcher.stop()  # this node hears, but does not keep up
        for batch in range(0, 200, 20):
            texts = [f"{at:04d}" + "x" * 996 for at in range(batch, batch + 20)]
            await asyncio.gather(*[one.broadcast_message("n", text) for text in texts])
        await eventually(lambda: gaps)
        two._parts.dispatcher.start()
        await eventually(lambda: bob.sent)
        await one.broadcast_message("n", "end")
        await eventually(lambda: bob.sent[-1:] == ["end"])
        missed = sum(gap.namespaces["n"] for gap in gaps)
        assert missed > 100
        assert len(bob.sent) - 1 + missed == 200
        assert all(gap.exact and gap.cause.startswith("messages were dropped") for gap in gaps)
        assert two.statistics()["dropped_overflow"] > 0
        assert bob.sent == sorted(bob.sent)


@async_test
async def test_a_subscription_that_redis_closes_reports_its_missed_messages(
    own_server: RedisServer,
) -> None:
    """Redis closes a subscriber whose output buffer is full; the gap names the number lost."""
    own_server.command("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 0")
    backend = Backend(own_server)
    async with (
        backend.pools(1) as (one,),
        own_server.network() as proxy,
        Pool(proxy.url, node_id="two") as two,
    ):
        bob = await two.host("n", "bob")
        gaps: list[Gap] = []
        two.on("gap", gaps.append)
        proxy.hold(upwards=False)
        for number in range(60):
            await one.broadcast_message("n", f"{number:02d}" + "x" * 100_000)
        counted = ("PUBSUB", "NUMSUB", "cluster_pool:{n}")
        await eventually(lambda: own_server.command(*counted).endswith(":0\r\n"), 15)
        proxy.heal()
        await eventually(lambda: gaps, 15)
        await one.broadcast_message("n", "end")
        await eventually(lambda: bob.sent[-1:] == ["end"], 15)
        (gap,) = gaps
        assert gap.exact
        assert gap.cause
        assert gap.namespaces["n"] > 10
        assert len(bob.sent) - 1 + gap.namespaces["n"] == 60


@async_test
async def test_a_batch_that_fails_in_part_answers_each_send(backend: Backend) -> None:
    """An error of Redis for one namespace does not affect others in the same call."""
    async with backend.pools() as (one, two), backend.client() as client:
        bob = await two.host("good", "bob")
        prefix = backend.prefix
        await client.set(f"{prefix}:{{bad}}:members", "no hash")
        await client.set(f"{prefix}:{{bad}}:numbers", "no hash")
        sends = [one.send(name, "bob", name, confirm=True) for name in ("bad", "good", "bad")]
        first, second, third = await asyncio.gather(*sends, return_exceptions=True)
        assert second is SendResult.DELIVERED
        for failed in (first, third):
            assert isinstance(failed, BackplaneUnavailableError)
            assert "WRONGTYPE" in str(failed)
            assert not failed.maybe_executed
        broadcasts = [one.broadcast_message(name, name) for name in ("bad", "good", "bad")]
        assert await asyncio.gather(*broadcasts) == [0, 1, 0]
        assert await client.type(f"{prefix}:{{bad}}:numbers") == b"hash", "it begins anew"
        assert await bob.wait_sent(2) == ["good", "good"]
        await client.delete(f"{prefix}:{{bad}}:members", f"{prefix}:{{bad}}:numbers")


@async_test
async def test_a_node_that_slept_past_its_lease_asks_before_it_sends(backend: Backend) -> None:
    """It may have lost the id without knowing it yet: its send goes to the new owner."""
    async with backend.pools() as (one, two):
        stale = await one.host("n", "alice")
        await one._parts.dispatcher.stop()  # what was said while it slept is still unread
        newer = await two.host("n", "alice")
        assert await one.send("n", "alice", "before the lease is over") is SendResult.DELIVERED
        one._parts.lease._until = 0.0
        assert await one.send("n", "alice", "after") is SendResult.ROUTED
        assert await newer.wait_sent() == ["after"]
        assert stale.sent == ["before the lease is over"]
        one._parts.dispatcher.start()
        assert (await stale.wait_closed())[0] == 4409


def assert_only_after(event: asyncio.Event, keeper: LeaseKeeper) -> None:
    """Let the node assert nothing at its next rejoin until the event is set."""
    assert_all = keeper._observer.register_all

    async def assert_late(incarnation: str, keep: Keep) -> None:
        await event.wait()
        await assert_all(incarnation, keep)

    keeper._observer.register_all = assert_late  # type: ignore[method-assign]


@async_test
async def test_a_node_that_slept_asks_until_it_knows_its_members_again(backend: Backend) -> None:
    """It has a new lease, but not yet the answer to its assertion."""
    async with backend.pools() as (one, two):
        stale = await one.host("n", "alice")
        await one._parts.dispatcher.stop()
        lease, answered = one._parts.lease, asyncio.Event()
        incarnation = lease.incarnation
        assert_only_after(answered, one._parts.lease_keeper)
        newer = await two.host("n", "alice")
        lease._until = 0.0
        one._parts.lease_keeper.wake()
        await eventually(lambda: lease.held and lease.incarnation != incarnation)
        one._parts.dispatcher.start()
        assert await one.send("n", "alice", "after") is SendResult.ROUTED
        assert await newer.wait_sent() == ["after"]
        answered.set()
        assert (await stale.wait_closed())[0] == 4409
        assert stale.sent == []


@async_test
async def test_a_node_with_an_unbroken_lease_sends_locally_during_a_rejoin(
    own_server: RedisServer,
) -> None:
    """Redis has lost everything, and the node has just begun to assert its members."""
    async with Backend(own_server).pools(1) as (one,):
        alice = await one.host("n", "alice")
        lease, answered = one._parts.lease, asyncio.Event()
        incarnation = lease.incarnation
        assert_only_after(answered, one._parts.lease_keeper)
        own_server.command("FLUSHALL")
        await eventually(lambda: lease.incarnation != incarnation)
        assert await one.send("n", "alice", "meanwhile") is SendResult.DELIVERED
        answered.set()
        await eventually(lambda: one.ready)
        assert await alice.wait_sent() == ["meanwhile"]


@async_test
async def test_no_member_is_called_absent_while_members_are_registered_again(
    own_server: RedisServer,
) -> None:
    """Redis comes back with nothing: a send waits for its member, and soon says that nothing is
    known; who is not registered two heartbeats later is absent."""
    async with Backend(own_server).pools() as (one, two):
        bob = await two.host("n", "bob")
        again = asyncio.Event()
        assert_only_after(again, two._parts.lease_keeper)
        own_server.kill()
        await eventually(lambda: not one.ready and not two.ready)
        own_server.start()
        await eventually(lambda: one.ready and shard_of(two).up)
        ready = asyncio.get_running_loop().time()
        first = asyncio.ensure_future(one.send("n", "bob", "first"))
        second = asyncio.ensure_future(one.broadcast_message("n", "second"))
        await asyncio.sleep(0.1)
        assert not first.done()
        again.set()
        assert await first is SendResult.ROUTED
        await second
        assert await bob.wait_sent(2) == ["first", "second"]
        with pytest.raises(BackplaneUnavailableError, match="no member is registered") as raised:
            await one.send("n", "nobody", "x")
        assert not raised.value.maybe_executed
        await asyncio.sleep(ready + 2 * one.timing.heartbeat - asyncio.get_running_loop().time())
        assert await one.send("n", "nobody", "x") is SendResult.ABSENT


@async_test
async def test_a_malformed_claim_does_not_affect_other_sends(backend: Backend) -> None:
    """The hash holds fields of foreign origin: members beside them still get their messages."""
    async with backend.pools() as (one, two):
        alice = await two.host("n", "alice")
        owner = two._parts.lease.incarnation
        hand = {"empty": "", "bare": owner, "signs": ":::", "long": f"{owner}:1:{'x' * 70_000}"}
        with backend.sync_client() as client:
            client.hset(f"{backend.prefix}:{{n}}:members", mapping=hand)
            sent = [one.send_nowait("n", id, "hi") for id in ("empty", "signs", "long", "alice")]
            assert [await result for result in sent] == [
                *[SendResult.ABSENT] * 3,
                SendResult.ROUTED,
            ]
            assert await one.send("n", "bare", "hi", confirm=True) is SendResult.ABSENT
            client.hdel(f"{backend.prefix}:{{n}}:members", *hand)
        assert await alice.wait_sent() == ["hi"]


@async_test
async def test_cancelled_claims_leave_nothing(own_server: RedisServer) -> None:
    """Whenever a claim is cancelled, pool and registry agree afterwards."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,):
        for pause in (0, 0.0002, 0.0005, 0.001, 0.002):
            tasks = [asyncio.create_task(one.host("n", f"m{at}")) for at in range(20)]
            await asyncio.sleep(pause)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        async def counted() -> bool:
            return await one.count("n") == one.statistics()["connections"]

        await eventually(counted)
        await eventually(lambda: agree(one))


@pytest.mark.parametrize(
    "harm",
    [
        ("HDEL", "{n}:members", "m1", "m2"),
        ("DEL", "{n}:members"),
        ("DEL", "{n}:owners"),
        ("HSET", "{n}:members", "stray", "INCARNATION:1795412345678901:zz"),
        ("HINCRBY", "{n}:owners", "INCARNATION", "5"),
        ("HINCRBY", "{n}:owners", "INCARNATION#", "5"),
    ],
    ids=lambda harm: " ".join(harm[:2]),
)
@async_test
async def test_drift_from_any_cause_is_repaired(own_server: RedisServer, harm: list[str]) -> None:
    """Count and checksum show the difference, and the registry is repaired."""
    backend = Backend(own_server)
    timing = Timing(lease=6.0, heartbeat=0.3)
    async with backend.pools(1, timing=timing) as (one,):
        sockets = [await one.host("n", f"m{at}") for at in range(250)]
        incarnation = one.statistics()["incarnation"]
        words = [word.replace("INCARNATION", incarnation) for word in harm]
        words[1] = f"cluster_pool:{words[1]}"
        own_server.command(*words)
        await eventually(lambda: one.statistics()["repaired"] >= 1)
        await eventually(lambda: agree(one))
        assert one.statistics()["incarnation"] == incarnation
        assert all(socket.closed is None for socket in sockets)
        assert await one.send("n", "m1", "x") is SendResult.DELIVERED
        repaired = one.statistics()["repaired"]
        beats = one.statistics()["heard"]
        await eventually(lambda: one.statistics()["heard"] > beats + 2)
        assert one.statistics()["repaired"] == repaired
