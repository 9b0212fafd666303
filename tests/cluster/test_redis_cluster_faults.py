"""A Redis Cluster whose primaries fail over and whose slots move, under traffic."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError, Gap, SendResult, Timing
from cluster_pool.backplane.slots import slot_of
from cluster_pool.core.keys import is_probe
from tests.clusters import Pool
from tests.redis_clusters import away_from_home, cluster_pools, namespaces_of
from tests.support import async_test, eventually
from tools.harness.members import Member
from tools.harness.redis_cluster import RedisCluster, SlotMove

pytestmark = pytest.mark.slow

NOTICED = 3.5
"""Seconds until a shard that does not serve any more is noticed."""
HEALED = 5.0
"""Seconds until everything is as it was, once the cluster is whole."""


@pytest.fixture
def redis() -> Iterator[RedisCluster]:
    """One for each test: three primaries with a replica each, which serve what they can."""
    with RedisCluster(node_timeout=1) as cluster:
        for node in cluster.nodes:
            node.call("CONFIG", "SET", "cluster-require-full-coverage", "no")
        yield cluster


class Stream:
    """Numbered broadcasts from one node to a member at another, and their outcomes."""

    def __init__(self, sender: Pool, receiver: Pool, namespace: str) -> None:
        self.sender = sender
        self.receiver = receiver
        self.namespace = namespace
        self.stopping = False
        self.sent = 0
        self.failed = 0
        self.slowest = 0.0
        self.gaps: list[Gap] = []
        receiver.on("gap", self.gaps.append)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send every few milliseconds inside the context."""
        self.member = await self.receiver.host(self.namespace, "listener")
        task = asyncio.create_task(self._send())
        try:
            yield
        finally:
            self.stopping = True
            await task

    async def _send(self) -> None:
        loop = asyncio.get_running_loop()
        while not self.stopping:
            began = loop.time()
            self.sent += 1
            try:
                await self.sender.broadcast_message(self.namespace, str(self.sent))
            except BackplaneUnavailableError:
                self.failed += 1
            self.slowest = max(self.slowest, loop.time() - began)
            await asyncio.sleep(0.005)

    @property
    def heard(self) -> list[int]:
        """The numbers that arrived, in their order."""
        return [int(text) for text in self.member.sent]

    @property
    def missed(self) -> int:
        """Messages of this namespace that were reported as missed."""
        return sum(gap.namespaces.get(self.namespace, 0) for gap in self.gaps)

    async def account(self) -> None:
        """Every message arrived once and in order, or was reported, or its sender knows."""
        await eventually(lambda: len(self.heard) + self.missed + self.failed >= self.sent, 5)
        assert self.heard == sorted(set(self.heard))
        assert len(self.heard) <= self.sent


def one_in(redis: RedisCluster, primary: Member) -> str:
    """A namespace of a primary."""
    return namespaces_of(redis)[primary.port][0]


@async_test
async def test_a_slot_moves_there_and_back_under_traffic(redis: RedisCluster) -> None:
    """Messages missed in between are counted exactly; members and claims move along."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    async with cluster_pools(redis) as (one, two):
        stream = Stream(one, two, name)
        other = Stream(one, two, one_in(redis, target))
        before = two.statistics()
        async with stream.running(), other.running():
            for to in (target, source, target):
                await asyncio.sleep(0.5)
                await asyncio.to_thread(redis.move_slot, slot_of(name), to)
                newcomer = f"newcomer-{stream.sent}"
                await two.host(name, newcomer)
                assert await one.send(name, newcomer, "targeted", confirm=True)
            await asyncio.sleep(1.5)
        await stream.account()
        await other.account()
        assert stream.failed == other.failed == other.missed == 0
        assert len(stream.heard) + stream.missed == stream.sent
        assert all(gap.exact for gap in stream.gaps)
        assert stream.slowest < 3.0
        assert other.slowest < 1.5
        assert two.statistics()["incarnation"] == before["incarnation"]
        assert await one.count(name) == 4


@async_test
async def test_a_killed_primary_is_replaced_and_the_rest_does_not_notice(
    redis: RedisCluster,
) -> None:
    """Namespaces of other primaries go on; those of the dead one return with its replica."""
    dead, name = away_from_home(redis)
    alive = next(one for one in redis.primaries if one is not dead)
    async with cluster_pools(redis) as (one, two):
        other = Stream(one, two, one_in(redis, alive))
        members = [await two.host(name, f"member-{at}") for at in range(50)]
        before = two.statistics()
        loop = asyncio.get_running_loop()
        async with other.running():
            dead.server.kill()
            with pytest.raises(BackplaneUnavailableError):
                await one.send(name, "member-1", "x", timeout=0.3)
            await asyncio.to_thread(redis.wait_for_another, dead)
            whole = loop.time()
            while True:
                with contextlib.suppress(BackplaneUnavailableError):
                    if await one.send(name, "member-1", "y", confirm=True, timeout=0.5):
                        break
                assert loop.time() - whole < HEALED
                await asyncio.sleep(0.05)
            await eventually(lambda: not two._parts.ownership.restoration.due, HEALED)
            assert loop.time() - whole < HEALED
        assert "y" in await members[1].wait_sent()
        await other.account()
        assert other.failed == other.missed == 0
        assert other.slowest < 1.5
        assert await one.count(name) == 50
        after = two.statistics()
        assert (after["incarnation"], after["rejoins"]) == (before["incarnation"], 0)


@async_test
async def test_a_killed_home_is_replaced_and_its_state_restored(redis: RedisCluster) -> None:
    """The lease is taken anew at the replica; no connection is closed."""
    dead = redis.primary_of("{~}")
    async with cluster_pools(redis) as (one, two):
        names = [name for names in namespaces_of(redis, 2).values() for name in names]
        members = {name: await two.host(name, "alice") for name in names}
        dead.server.kill()
        await eventually(lambda: not one.ready, 10)
        await asyncio.to_thread(redis.wait_for_another, dead)
        await eventually(lambda: one.ready and two.ready, HEALED)
        await eventually(lambda: not two._parts.ownership.restoration.due, HEALED)
        for name, member in members.items():
            assert await one.send(name, "alice", "x", confirm=True) is SendResult.DELIVERED
            assert await one.count(name) == 1
            assert not member.closed
        assert sorted(await one.namespaces()) == sorted(names)


@async_test
async def test_a_replica_promoted_by_order_is_found_in_time(redis: RedisCluster) -> None:
    """Both servers live on, so only the map tells that the old primary is a replica now."""
    source, name = away_from_home(redis)
    (replica,) = redis.replicas_of(source)
    async with cluster_pools(redis) as (one, two):
        stream = Stream(one, two, name)
        async with stream.running():
            await asyncio.sleep(0.3)
            await asyncio.to_thread(redis.promote, replica)
            await asyncio.sleep(NOTICED)
            sent = stream.sent
            await eventually(lambda: stream.heard and stream.heard[-1] >= sent, HEALED)
        await stream.account()
        assert await one.send(name, "listener", "1000000", confirm=True)


@async_test
async def test_a_move_that_stops_half_way_loses_no_message(
    redis: RedisCluster,
) -> None:
    """TRYAGAIN and ASK: sends wait until their deadline, and are made when the move is over."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    async with cluster_pools(redis) as (one, two):
        await two.host(name, "alice")
        bob = await two.host(name, "bob")
        move = await asyncio.to_thread(SlotMove, redis, slot_of(name), target)
        await asyncio.to_thread(move.carry, f"cluster_pool:{{{name}}}:owners")
        await asyncio.to_thread(move.carry, f"cluster_pool:{{{name}}}:members")
        with pytest.raises(BackplaneUnavailableError):
            await one.send(name, "bob", "early", timeout=0.3)
        sending = asyncio.ensure_future(one.send(name, "bob", "late", confirm=True, timeout=10))
        await asyncio.sleep(0.3)
        assert not sending.done()
        await asyncio.to_thread(move.finish)
        if await sending is SendResult.UNREACHABLE:  # its owner has not followed the slot yet
            await eventually(lambda: one.send(name, "bob", "late", confirm=True))
        assert await bob.wait_sent() == ["late"]
        assert await one.count(name) == 2


@async_test
async def test_a_list_that_moves_while_it_is_read_is_not_taken_for_whole(
    redis: RedisCluster,
) -> None:
    """A cursor of one primary says nothing at another."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    async with cluster_pools(redis) as (one, two):
        await asyncio.gather(*[two.host(name, f"member-{at}") for at in range(1200)])
        members = one.members(name)
        await anext(members)
        await asyncio.to_thread(redis.move_slot, slot_of(name), target)
        with pytest.raises(BackplaneUnavailableError, match="read it again"):
            async for _ in members:
                pass
        assert len({member.id async for member in one.members(name)}) == 1200


@async_test
async def test_a_move_of_the_probes_slot_that_stops_half_way_ends_no_link(
    redis: RedisCluster,
) -> None:
    """The node probes that primary in another slot; its namespaces go on."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    async with cluster_pools(redis) as (one, two):
        shard = two._parts.backplane.topology.of(name)
        slot, generation = slot_of(shard.subscriptions.probed), shard.generation
        assert slot != slot_of(name)
        stream = Stream(one, two, name)
        async with stream.running():
            move = await asyncio.to_thread(SlotMove, redis, slot, target)
            await asyncio.sleep(4)
            assert slot_of(shard.subscriptions.probed) != slot
            await asyncio.to_thread(move.finish)
        await stream.account()
        assert stream.failed == stream.missed == 0
        assert shard.generation == generation
        probes = [name for name in shard.subscriptions.channels if is_probe(name)]
        assert probes == [shard.subscriptions.probed]


@async_test
async def test_a_message_from_a_client_waits_for_a_slot_that_moves(redis: RedisCluster) -> None:
    """Nothing was published when Redis says that the slot is elsewhere."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    async with cluster_pools(redis, 1) as (one,):
        member = await one.host(name, "alice")
        connection: Any = member.connection  # type: ignore[attr-defined]
        await asyncio.to_thread(redis.move_slot, slot_of(name), target)
        assert await one.publish_inbound(connection, "hello") == 0


@async_test
async def test_a_primary_that_comes_back_empty_and_refuses_at_first_is_known_to_be_empty(
    redis: RedisCluster,
) -> None:
    """It answers that the cluster is down for a while; every listener reports a gap all the same,
    which says that it is a lower bound."""
    source, name = away_from_home(redis)
    (replica,) = redis.replicas_of(source)
    replica.server.kill()
    async with cluster_pools(redis, 3) as pools:
        gaps: list[list[Gap]] = [[], [], []]
        for pool, heard in zip(pools, gaps, strict=True):
            pool.on("gap", heard.append)
            await pool.host(name, f"listener at {pool.node_id}")
        await pools[0].broadcast_message(name, "counted")
        source.server.kill()
        await asyncio.sleep(2.5)  # the others have noticed, and it has to ask them first
        await asyncio.to_thread(source.server.start)
        await eventually(
            lambda: all(pool._parts.backplane.topology.of(name).up for pool in pools), 9
        )
        await eventually(lambda: all(heard and not heard[0].exact for heard in gaps), 2)


@async_test
async def test_the_first_send_to_a_node_waits_for_a_slot_that_is_half_moved(
    redis: RedisCluster,
) -> None:
    """Its channel has no counter yet, so Redis refuses that key inside the script."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    async with cluster_pools(redis) as (one, two):
        member = await two.host(name, "alice")
        move = await asyncio.to_thread(SlotMove, redis, slot_of(name), target)
        sending = asyncio.create_task(one.send(name, "alice", "hello", confirm=True))
        await asyncio.sleep(0.5)
        assert not sending.done()
        await asyncio.to_thread(move.finish)
        answer = await sending  # the owner may not listen at the new primary yet
        assert answer in (SendResult.DELIVERED, SendResult.UNREACHABLE)
        assert member.sent == ["hello"] * (answer is SendResult.DELIVERED)


@async_test
async def test_a_confirmed_send_is_answered_though_home_was_away_when_the_owner_answered() -> None:
    """Its shard is up, so it is sent; the answer goes to the sender's own channel, at home."""
    with RedisCluster(replicas=0, node_timeout=20) as redis:
        _, name = away_from_home(redis)
        home = redis.nodes.index(redis.primary_of("{~}"))
        async with (
            redis.network() as network,
            cluster_pools(redis, 1) as (one,),
            Pool(network.url, node_id="far") as far,
        ):
            await one.host(name, "alice")
            assert await far.send(name, "alice", "the owner is known", confirm=True)
            way = network.proxies[home]
            await way.refuse()
            await eventually(lambda: not far._parts.backplane.topology.home.up)
            sending = asyncio.create_task(far.send(name, "alice", "x", confirm=True, timeout=10))
            await eventually(lambda: one.statistics()["delivered"] >= 2)
            assert not sending.done()
            await way.accept()
            assert await sending is SendResult.DELIVERED


@async_test
async def test_a_takeover_while_the_owner_follows_a_slot_is_noticed(
    redis: RedisCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node hears nothing of it; it looks as soon as it hears the namespace again."""
    source, name = away_from_home(redis)
    target = next(one for one in redis.primaries if one is not source)
    async with cluster_pools(redis, timing=Timing(lease=60, heartbeat=20)) as (one, two):
        older = await two.host(name, "alice")
        topology = two._parts.backplane.topology
        former, goes_on = topology.of(name), asyncio.Event()
        for shard in topology.shards:
            resubscribe = shard.subscriptions.resubscribe

            async def later(channels: Any, resubscribe: Any = resubscribe) -> None:
                if topology.of(name) is not former:  # before, it finds the new map
                    await goes_on.wait()
                await resubscribe(channels)

            monkeypatch.setattr(shard.subscriptions, "resubscribe", later)
        await asyncio.to_thread(redis.move_slot, slot_of(name), target)
        await eventually(lambda: topology.of(name) is not former)
        await eventually(lambda: not two._parts.ownership.restoration.due)
        await one.host(name, "alice", timeout=10)
        await asyncio.sleep(0.2)
        assert older.closed is None
        goes_on.set()
        assert await older.wait_closed() == (4409, "taken over")
