"""A slot of a Redis Cluster that stays half-way between two primaries."""

import asyncio
from collections.abc import Iterator

import pytest

from cluster_pool import BackplaneUnavailableError, History, SendResult, Timing
from cluster_pool.backplane.slots import HOME_SLOT, slot_of
from cluster_pool.testing import FAST
from tests.clusters import connection_of
from tests.redis_clusters import away_from_home, cluster_pools, namespaces_of
from tests.support import async_test, eventually
from tools.harness.redis_cluster import RedisCluster, SlotMove

pytestmark = pytest.mark.slow


@pytest.fixture
def redis() -> Iterator[RedisCluster]:
    """One for each test, without replicas."""
    with RedisCluster(replicas=0, node_timeout=20) as cluster:
        yield cluster


@async_test
async def test_operations_in_it_say_which_slot_it_is_and_what_redis_says(
    redis: RedisCluster,
) -> None:
    """Claims and sends fail at their deadline, having been tried until then."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    slot = f"slot {slot_of(name)}: "
    async with cluster_pools(redis) as (one, two):
        await two.host(name, "alice")
        move = await asyncio.to_thread(SlotMove, redis, slot_of(name), target)
        for carried, words in (
            ("owners", ("TRYAGAIN", "TRYAGAIN", "TRYAGAIN")),
            ("members", ("ASK", "ASK", "ASK")),
        ):
            await asyncio.to_thread(move.carry, f"cluster_pool:{{{name}}}:{carried}")
            for operation, word in zip(
                (
                    lambda: one.host(name, "bob", timeout=2.0),
                    lambda: one.send(name, "alice", "x", timeout=2.0),
                    lambda: one.broadcast_message(name, "x", timeout=2.0),
                ),
                words,
                strict=True,
            ):
                with pytest.raises(BackplaneUnavailableError, match=f"{slot}.*({word})") as raised:
                    await operation()
                assert "--cluster fix" in str(raised.value)
        await asyncio.to_thread(move.finish)
        await one.host(name, "bob")
        assert await one.count(name) == 2


@async_test
async def test_no_broadcast_fails_for_a_history_that_has_gone_ahead(redis: RedisCluster) -> None:
    """Its stream is at the target, all else is not: it begins anew, and each message comes once."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    async with cluster_pools(redis, history={name: History()}) as (one, two):
        alice = await two.host(name, "alice")
        await one.broadcast_message(name, "0")
        move = await asyncio.to_thread(SlotMove, redis, slot_of(name), target)
        assert await asyncio.to_thread(move.carry, f"cluster_pool:{{{name}}}:history")
        for number in range(1, 4):
            assert await one.broadcast_message(name, str(number)) == 1
        assert await alice.wait_sent(4) == ["0", "1", "2", "3"]
        await asyncio.to_thread(move.finish)

        async def recorded() -> bool:
            await one.broadcast_message(name, "4", timeout=10)
            return bool(await one.history(name, timeout=10))

        await eventually(recorded, 30)
        assert {message.message for message in await one.history(name)} == {"4"}


@async_test
async def test_a_send_that_is_partly_published_goes_on_when_the_move_is_over(
    redis: RedisCluster,
) -> None:
    """The counter of one node's channel is there, that of the other is not. Nothing is sent
    twice, and what stands behind is not sent before."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    async with cluster_pools(redis, 3) as (one, two, three):
        near, far = await two.host(name, "near"), await three.host(name, "far")
        await one.broadcast_message(name, "first")
        assert await one.send(name, "near", "second", confirm=True)
        move = await asyncio.to_thread(SlotMove, redis, slot_of(name), target)
        sending = [
            asyncio.ensure_future(one.send(name, id, "third", timeout=10)) for id in ("near", "far")
        ]
        behind = asyncio.ensure_future(one.broadcast_message(name, "fourth", timeout=10))
        assert await sending[0] is SendResult.ROUTED
        assert await near.wait_sent(3) == ["first", "second", "third"]
        await asyncio.sleep(0.3)
        assert not sending[1].done()
        assert not behind.done()
        await asyncio.to_thread(move.finish)
        answers = [await sending[1], await behind]
        await eventually(lambda: one.broadcast_message(name, "last"))
        await eventually(lambda: far.sent[-1:] == ["last"])
        assert near.sent.count("third") == 1
        assert far.sent in (
            ["first", "third", "fourth", "last"],
            ["first", "fourth", "last"],
            ["first", "last"],
        )
        assert ("third" in far.sent) == (answers[0] is SendResult.ROUTED)
        assert ("fourth" in far.sent) == (answers[1] > 0)


@async_test
async def test_the_links_live_on_while_the_slot_of_the_leases_is_half_way(
    redis: RedisCluster,
) -> None:
    """Nothing can be written there, so the leases end in time; but nothing else is broken off, and
    no node is asked to begin anew before the move is over."""
    home = redis.primary_of("{~}")
    target = next(one for one in redis.primaries if one is not home)
    _, name = away_from_home(redis)
    async with cluster_pools(redis) as (one, two):
        await two.host(name, "alice")
        assert await one.send(name, "alice", "the owner is known from here on", confirm=True)
        generations = [pool.statistics()["generations"] for pool in (one, two)]
        move = await asyncio.to_thread(SlotMove, redis, HOME_SLOT, target)
        await asyncio.to_thread(move.carry, "cluster_pool:{~}:leases")
        assert await one.send(name, "alice", "x") is SendResult.ROUTED
        await eventually(lambda: not one.ready and not two.ready)
        trouble = one.trouble
        assert trouble is not None
        assert "TRYAGAIN" in trouble
        await asyncio.sleep(FAST.lease)
        with pytest.raises(
            BackplaneUnavailableError, match=r"looked up.*(TRYAGAIN|ASK)|may have lost some"
        ):
            await one.send(name, "alice", "x", timeout=2.0)
        assert generations == [pool.statistics()["generations"] for pool in (one, two)]
        await asyncio.to_thread(move.finish)
        await eventually(lambda: one.ready and two.ready)
        assert await one.send(name, "alice", "x", confirm=True) is SendResult.DELIVERED


@async_test
async def test_a_release_is_made_up_for_as_soon_as_the_move_is_over(redis: RedisCluster) -> None:
    """It does not wait for the next heartbeat."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    async with cluster_pools(redis, 1, timing=Timing(lease=60, heartbeat=20)) as (one,):
        connection = connection_of(await one.host("app", "alice"))
        await connection.join(name)
        move = await asyncio.to_thread(SlotMove, redis, slot_of(name), target)
        await asyncio.to_thread(move.carry, f"cluster_pool:{{{name}}}:members")
        emptied: list[str] = []
        leaving = asyncio.create_task(
            connection.leave(name, on_empty_namespace=lambda: emptied.append(name), timeout=10)
        )
        await asyncio.sleep(0.3)
        assert not leaving.done()
        await asyncio.to_thread(move.finish)
        await leaving
        assert emptied == [name]


@async_test
async def test_other_namespaces_of_its_shard_are_registered_again_meanwhile(
    redis: RedisCluster,
) -> None:
    """A slot may stay half-way for hours."""
    source, _ = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    stuck, *others = namespaces_of(redis, 5)[source.port]

    def registered(*names: str) -> int:
        return sum(source.call("HLEN", f"cluster_pool:{{{name}}}:members") for name in names)

    async with cluster_pools(redis, 1) as (one,):
        for name in (stuck, *others):
            await one.host(name, "alice")
        shard = one._parts.backplane.topology.of(stuck)
        generation = shard.generation
        move = await asyncio.to_thread(SlotMove, redis, slot_of(stuck), target)
        await asyncio.to_thread(move.carry, f"cluster_pool:{{{stuck}}}:owners")
        for name in others:
            source.call("DEL", f"cluster_pool:{{{name}}}:members")
            source.call("DEL", f"cluster_pool:{{{name}}}:owners")
        source.call("CLIENT", "KILL", "TYPE", "normal")
        source.call("CLIENT", "KILL", "TYPE", "pubsub")
        await eventually(lambda: shard.up and shard.generation > generation, 20)
        await eventually(lambda: registered(*others) == len(others))
        restoration = one._parts.ownership.restoration
        await eventually(lambda: restoration.due == 1)
        assert restoration.is_due(stuck)
        await asyncio.to_thread(move.finish)
        await eventually(lambda: not restoration.due)
        assert await one.count(stuck) == 1


@async_test
async def test_a_message_that_waits_for_a_slot_is_kept_once(redis: RedisCluster) -> None:
    """The counter of its owner's channel has gone ahead: until it is there the message is tried
    again and again, and the history has none of these attempts."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    history = {"*": History(replay_targeted_without_user=True)}
    async with cluster_pools(redis, history=history) as (one, two):
        alice = await two.host(name, "alice")
        await one.send(name, "alice", "1")
        await alice.wait_sent()
        start = two._parts.backplane.identity.start
        move = await asyncio.to_thread(SlotMove, redis, slot_of(name), target)
        counter = f"cluster_pool:{{{name}}}:start:{start}:numbers"
        await asyncio.to_thread(move.carry, counter)
        sending = asyncio.create_task(one.send(name, "alice", "2", timeout=20.0))
        await asyncio.sleep(1)
        assert not sending.done()
        assert (await one.position(name)).endswith(".1")
        await asyncio.to_thread(move.finish)
        assert await sending
        assert await alice.wait_sent(2) == ["1", "2"]
