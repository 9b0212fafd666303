"""Gaps after a primary of a Redis Cluster has changed: when there is one, and its numbers."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from cluster_pool import Gap
from cluster_pool.backplane.slots import slot_of
from cluster_pool.testing import FAST
from tests.clusters import Pool
from tests.redis_clusters import away_from_home, cluster_pools, namespaces_of
from tests.support import async_test, eventually
from tools.harness.members import Member
from tools.harness.proxy import Proxy
from tools.harness.redis_cluster import RedisCluster, SlotMove

pytestmark = pytest.mark.slow


@pytest.fixture
def redis() -> Iterator[RedisCluster]:
    """One for each test: three primaries with a replica each, which serve what they can."""
    with RedisCluster(node_timeout=1) as cluster:
        for node in cluster.nodes:
            node.call("CONFIG", "SET", "cluster-require-full-coverage", "no")
        yield cluster


def gaps_of(pool: Pool) -> list[Gap]:
    """All gaps from now on."""
    gaps: list[Gap] = []
    pool.on("gap", gaps.append)
    return gaps


def named(gaps: list[Gap], name: str) -> list[tuple[int, bool]]:
    """How many messages of a namespace were missed, and whether exactly, by each gap with it."""
    return [(gap.namespaces[name], gap.exact) for gap in gaps if name in gap.namespaces]


@async_test
async def test_primaries_that_change_while_nothing_is_missed_are_no_gap(
    redis: RedisCluster,
) -> None:
    """That of the leases and that of members, by order and without asking; every node has spoken
    and heard before."""
    names = [name for names in namespaces_of(redis, 2).values() for name in names]
    async with cluster_pools(redis) as (one, two):
        gaps = [gaps_of(one), gaps_of(two)]
        for name in names:
            await one.host(name, "alice")
            member = await two.host(name, "bob")
            await one.broadcast_message(name, "hello")
            await one.send(name, "bob", "hello, bob", confirm=True)
            await member.wait_sent(2)
        for how in ("", "TAKEOVER"):
            for name in ("~", names[0]):
                primary = redis.primary_of(f"{{{name}}}")
                (replica,) = redis.replicas_of(primary)
                generations = [pool.statistics()["generations"] for pool in (one, two)]
                await asyncio.to_thread(redis.promote, replica, how)
                await eventually(
                    lambda before=generations: (
                        before < [pool.statistics()["generations"] for pool in (one, two)]
                    )
                )
                await eventually(lambda: settled(one) and settled(two))
                await asyncio.to_thread(redis.wait_until_whole)
        await asyncio.sleep(2 * FAST.probe)
        assert gaps == [[], []]


def settled(pool: Pool) -> bool:
    """Whether every shard is up, and nothing is left to be registered again."""
    return pool.ready and all(
        shard.up for shard in pool._parts.backplane.topology.shards if shard.begun
    )


class Apart:
    """A node that hears of a new primary later than another node does."""

    def __init__(self, redis: RedisCluster, one: Pool, two: Pool, ways: list[Proxy]) -> None:
        self.redis, self.one, self.two = redis, one, two
        self.primary, self.name = away_from_home(redis)
        (self.replica,) = redis.replicas_of(self.primary)
        self.way = ways[redis.nodes.index(self.replica)]
        self.former_way = ways[redis.nodes.index(self.primary)]
        self.numbers = f"cluster_pool:{{{self.name}}}:numbers"
        self.gaps = gaps_of(two)

    async def join(self, messages: int) -> None:
        """Both have a member of the namespace, and ``two`` has heard this many messages."""
        await self.one.host(self.name, "alice")
        self.bob = await self.two.host(self.name, "bob")
        for number in range(messages):
            await self.one.broadcast_message(self.name, str(number))
        await self.bob.wait_sent(messages)
        assert await asyncio.to_thread(self.primary.call, "WAIT", 1, 3000) == 1

    def hold_once_ended(self) -> None:
        """``two`` asks the former primary for nothing more once that has ended a subscription:
        as a replica that grants it again, ``two`` would hear the new primary through it."""
        receiver = self.two._parts.backplane.topology.of(self.name).receiver
        ended = receiver.ended

        def hold(channel: str) -> None:
            self.former_way.hold(downwards=False)
            ended(channel)

        receiver.ended = hold  # type: ignore[method-assign]

    async def publish(self, messages: int) -> None:
        """At the new primary, which ``two`` does not reach."""
        topology = self.one._parts.backplane.topology
        await eventually(lambda: topology.of(self.name).succession.digits != self.digits)
        await eventually(lambda: topology.of(self.name).up)
        for number in range(messages):
            await self.one.broadcast_message(self.name, f"missed {number}", timeout=10)

    @property
    def digits(self) -> str:
        """Those of the server that ``two`` knows."""
        return self.two._parts.backplane.topology.of(self.name).succession.digits

    async def heal(self) -> list[tuple[int, bool]]:
        """``two`` reaches the new primary, and hears what is published from then on."""
        former = self.digits
        self.way.heal()
        await eventually(lambda: self.digits != former and settled(self.two), 20)
        self.former_way.heal()
        await self.one.broadcast_message(self.name, "heard")
        await eventually(lambda: self.bob.sent[-1:] == ["heard"])
        await asyncio.sleep(2 * FAST.probe)
        return named(self.gaps, self.name)


@contextlib.asynccontextmanager
async def apart(redis: RedisCluster) -> AsyncIterator[Apart]:
    """Two nodes, of which the second has a network of its own."""
    async with (
        redis.network() as network,
        cluster_pools(redis, 1) as (one,),
        Pool(network.url, node_id="node-2", timing=FAST) as two,
    ):
        yield Apart(redis, one, two, network.proxies)


@async_test
async def test_a_channel_that_was_heard_to_its_end_has_an_exact_gap(redis: RedisCluster) -> None:
    """The former primary lives and has ended the subscription by itself; the numbers of the new one
    are the rest, also where it had not got the newest messages."""
    async with apart(redis) as test:
        await test.join(5)
        test.way.hold()
        test.hold_once_ended()
        await asyncio.to_thread(redis.promote, test.replica, "TAKEOVER")
        test.replica.call("HINCRBY", test.numbers, "last", -2)
        await test.publish(4)
        assert await test.heal() == [(4, True)]


@async_test
async def test_a_primary_that_died_leaves_lower_bounds_where_messages_were_missed(
    redis: RedisCluster,
) -> None:
    """It may have taken others with it. A namespace without any is in no gap."""
    async with apart(redis) as test:
        quiet = next(
            name for name in namespaces_of(redis, 2)[test.primary.port] if name != test.name
        )
        await test.join(5)
        carol = await test.two.host(quiet, "carol")
        await test.one.broadcast_message(quiet, "once")
        assert await carol.wait_sent() == ["once"]
        test.way.hold()
        await asyncio.to_thread(replaced, redis, test.primary, test.replica)
        test.replica.call("HINCRBY", test.numbers, "last", -2)
        await test.publish(4)
        assert await test.heal() == [(4, False)]
        assert named(test.gaps, quiet) == []


@async_test
async def test_a_number_that_was_given_twice_hides_no_message(redis: RedisCluster) -> None:
    """The new primary lacks two messages, and two others have been published there since."""
    async with apart(redis) as test:
        await test.join(5)
        test.way.hold()
        await asyncio.to_thread(replaced, redis, test.primary, test.replica)
        test.replica.call("HINCRBY", test.numbers, "last", -2)
        await test.publish(2)
        assert await test.heal() == [(2, False)]


@async_test
async def test_a_counter_that_came_back_from_before_counts_nothing(redis: RedisCluster) -> None:
    """The new primary has an older counter, which stands higher."""
    async with apart(redis) as test:
        await test.join(5)
        test.way.hold()
        await asyncio.to_thread(replaced, redis, test.primary, test.replica)
        test.replica.call("HSET", test.numbers, "last", 57, "epoch", 1_700_000_000_000_000)
        await asyncio.sleep(0)
        assert await test.heal() == [(0, False)]


@async_test
async def test_a_counter_that_cannot_be_read_yet_is_read_again(redis: RedisCluster) -> None:
    """The gap says at once that it knows nothing, and how many it was once the counter is there:
    nobody sends anything meanwhile."""
    async with apart(redis) as test:
        await test.join(5)
        shard = test.two._parts.backplane.topology.of(test.name)
        await test.former_way.refuse()
        await eventually(lambda: not shard.up)
        for number in range(4):
            await test.one.broadcast_message(test.name, f"missed {number}")
        target = next(one for one in redis.primaries if one is not test.primary)
        move = await asyncio.to_thread(SlotMove, redis, slot_of(test.name), target)
        await asyncio.to_thread(move.carry, test.numbers)
        await test.former_way.accept()
        await eventually(lambda: shard.up, 20)
        await asyncio.sleep(2 * FAST.probe)
        assert named(test.gaps, test.name) == [(0, False)]
        await asyncio.to_thread(move.back)
        await eventually(lambda: len(named(test.gaps, test.name)) > 1)
        await test.one.broadcast_message(test.name, "heard", timeout=10)
        await eventually(lambda: test.bob.sent[-1:] == ["heard"])
        await asyncio.sleep(2 * FAST.probe)
        assert named(test.gaps, test.name) == [(0, False), (4, True)]
        assert all(gap.seconds > 0 for gap in test.gaps)


@async_test
async def test_a_counter_that_came_back_and_cannot_be_read_yet_names_no_old_messages(
    redis: RedisCluster,
) -> None:
    """A snapshot has the epoch before the one that was heard last. The first message there is no
    sign that those before it were missed: all of them were heard."""
    async with apart(redis) as test:
        await test.join(5)
        former = test.primary.call("HGET", test.numbers, "epoch")
        test.primary.call("DEL", test.numbers)
        for number in range(2):
            await test.one.broadcast_message(test.name, f"later {number}")
        await test.bob.wait_sent(7)
        shard = test.two._parts.backplane.topology.of(test.name)
        await test.former_way.refuse()
        await eventually(lambda: not shard.up)
        test.primary.call("HSET", test.numbers, "epoch", former, "last", 5)
        target = next(one for one in redis.primaries if one is not test.primary)
        move = await asyncio.to_thread(SlotMove, redis, slot_of(test.name), target)
        await asyncio.to_thread(move.carry, test.numbers)
        await test.former_way.accept()
        await eventually(lambda: shard.up, 20)
        await asyncio.to_thread(move.back)
        await test.one.broadcast_message(test.name, "heard", timeout=10)
        await eventually(lambda: test.bob.sent[-1:] == ["heard"])
        await asyncio.sleep(2 * FAST.probe)
        assert {*named(test.gaps, test.name)} == {(0, False)}


def replaced(redis: RedisCluster, primary: Member, replica: Member) -> None:
    """SIGKILL a primary, and block until its replica has taken over."""
    primary.server.kill()
    redis.promote(replica, "TAKEOVER")
