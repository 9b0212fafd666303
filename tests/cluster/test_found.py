"""Faults that the state machine has found, one test for each."""

import asyncio
import contextlib

import pytest
from fakeredis import FakeAsyncRedis

from cluster_pool import BackplaneUnavailableError, Timing
from cluster_pool.backplane import script_calls
from cluster_pool.testing import FAST, fake_cluster
from tests.cluster.machine import law
from tests.cluster.machine.loop import VirtualLoop
from tests.cluster.machine.network import fake_network
from tests.cluster.machine.world import World
from tests.clusters import Backend
from tests.support import async_test, eventually


@async_test
async def test_a_stop_ends_although_the_link_fails_at_that_moment() -> None:
    """A cancellation that coincides with the failure of a socket is not lost."""
    async with fake_cluster(nodes=1) as cluster:
        shard = cluster[0]._parts.backplane.shard
        cluster.server.script_cache.clear()
        with contextlib.suppress(BackplaneUnavailableError):
            call = script_calls.publish(
                cluster[0]._parts.backplane.setup.keys, sender="", counted_by="", envelopes=[]
            )
            await shard.script(asyncio.get_running_loop().time() + 1, call)
        stopping = asyncio.create_task(shard.stop())
        done, _ = await asyncio.wait([stopping], timeout=5)
        assert done


@async_test
async def test_a_counter_without_its_epoch_gets_a_new_one() -> None:
    """Half a counter, left by a foreign hand, does not silence its channel for a day."""
    async with fake_cluster(nodes=1) as cluster, FakeAsyncRedis(server=cluster.server) as client:
        (one,) = cluster
        await cluster.connect(0, "n", "x")
        for _ in range(2):
            assert await one.broadcast_message("n", "hello") == 1
            assert await client.hdel("cluster_pool:{n}:numbers", "epoch") == 1
        assert await one.broadcast_message("n", "hello") == 1


@async_test
async def test_a_stop_leaves_no_claim_that_was_under_way() -> None:
    """At every tick the claim is refused, or released if Redis had registered it."""
    for ticks in range(40):
        async with (
            fake_cluster(nodes=1) as cluster,
            FakeAsyncRedis(server=cluster.server) as client,
        ):
            joining = asyncio.create_task(cluster.connect(0, "n", "x"))
            for _ in range(ticks):
                await asyncio.sleep(0)
            await cluster[0].stop()
            (outcome,) = await asyncio.gather(joining, return_exceptions=True)
            assert await client.keys("*:members") == [], f"after {ticks} ticks: {outcome!r}"
            if isinstance(outcome, tuple):
                assert outcome[1].closed is not None


def test_an_old_takeover_does_not_undo_a_later_assertion() -> None:
    """The thawed node owns its id again, and only then receives the takeover from the past."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        with loop.everywhere():
            runner.run(freeze_and_take_over())


async def freeze_and_take_over() -> None:
    """The new owner releases the id before the older node runs again."""
    world = World(Backend(None), fake_network)
    try:
        one, two = await world.start("one"), await world.start("two")
        older = world.join(one, ("n", "x"), takeover=True)
        await older.attempt
        one.process.freeze()
        newer = world.join(two, ("n", "x"), takeover=True)
        await newer.attempt
        assert await world.leave(newer)
        await asyncio.sleep(FAST.lease + 1)
        one.process.thaw()
        await world.until(lambda: law.disagreement(world), 10)
        assert older.websocket.closed is None
    finally:
        await world.kill_all()


@async_test
async def test_members_of_an_unknown_owner_are_removed() -> None:
    """They were claimed between a FLUSHALL and the next heartbeat, and never answered."""
    timing = Timing(lease=1.5, heartbeat=0.3)
    async with (
        fake_cluster(nodes=1, timing=timing) as cluster,
        FakeAsyncRedis(server=cluster.server) as client,
    ):
        (one,) = cluster
        await cluster.connect(0, "n", "x")
        await client.hset("cluster_pool:{n}:members", "ghost", "vanished.3:1795412345678901:zz")
        await client.hset("cluster_pool:{n}:owners", "vanished.3", 1)
        await client.hset("cluster_pool:{n}:owners", "vanished.3#", 345678901)

        async def swept() -> bool:
            ids = await client.hkeys("cluster_pool:{n}:members")
            owners = await client.hkeys("cluster_pool:{n}:owners")
            return ids == [b"x"] and not any(b"vanished" in name for name in owners)

        await eventually(swept)
        assert one.statistics()["repaired"] == 1
        assert await one.count("n") == 1


@async_test
async def test_a_socket_that_is_closed_already_is_a_lost_link(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """uvloop raises RuntimeError then; that is no internal fault, and needs no traceback."""
    async with fake_cluster(nodes=1) as cluster:
        (one,) = cluster
        commands = one._parts.backplane.shard.commands
        assert commands is not None

        async def closed(*arguments: object, **options: object) -> None:
            raise RuntimeError("unable to perform operation; the handler is closed")

        commands.connection.send_packed_command = closed  # type: ignore[method-assign]
        with contextlib.suppress(BackplaneUnavailableError):
            await one.count("n", timeout=1)
        await eventually(lambda: one.statistics()["generation"] == 2)
        assert not [record for record in caplog.records if record.exc_info]


@async_test
async def test_a_count_without_members_does_not_outlive_the_last_one() -> None:
    """The members' key was deleted by hand; no node would look at the namespace again."""
    async with (
        fake_cluster(nodes=1) as cluster,
        FakeAsyncRedis(server=cluster.server) as client,
    ):
        (one,) = cluster
        connection, _ = await cluster.connect(0, "n", "x")
        await client.delete("cluster_pool:{n}:members")
        await one.remove_connection(connection)
        assert await one.count("n") == 0
        assert not await client.exists("cluster_pool:{n}:owners")
