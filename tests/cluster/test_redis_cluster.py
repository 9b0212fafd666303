"""A node and a publisher on a Redis Cluster: all that they do on one Redis."""

import asyncio
from collections.abc import Iterator

import pytest

from cluster_pool import (
    BackplaneUnavailableError,
    ClusterPool,
    IdTakenError,
    MemberEvent,
    Publisher,
    SendResult,
)
from tests.clusters import abandon, vanish
from tests.redis_clusters import cluster_pools, leaked, namespaces_of
from tests.support import async_test, eventually
from tools.harness.redis_cluster import RedisCluster


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisCluster]:
    """One for all tests here, none of which harms it."""
    with RedisCluster() as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def nothing_left(redis: RedisCluster) -> Iterator[None]:
    """Check that the test left no key."""
    yield
    assert leaked(redis) == []
    redis.flush()


def spread(redis: RedisCluster, count: int = 3) -> list[str]:
    """Namespaces of every primary."""
    return [name for names in namespaces_of(redis, count).values() for name in names]


@async_test
async def test_members_of_every_primary_get_their_messages(redis: RedisCluster) -> None:
    """From another node, from the same one, from a publisher; with the owner's answer."""
    names = spread(redis)
    async with cluster_pools(redis) as (one, two), Publisher(redis.url) as publisher:
        for name in names:
            member = await one.host(name, "alice")
            sends = [
                await two.send(name, "alice", "1"),
                await two.send(name, "alice", "2", confirm=True),
                await publisher.send(name, "alice", "3", confirm=True),
                await one.send(name, "alice", "4"),
            ]
            routed, delivered = SendResult.ROUTED, SendResult.DELIVERED
            assert sends == [routed, delivered, delivered, delivered]
            assert await member.wait_sent(4) == ["1", "2", "3", "4"]
            assert await two.send(name, "bob", "x") is SendResult.ABSENT
        assert one.ready
        assert two.statistics()["trouble"] is None


@async_test
async def test_sends_and_broadcasts_of_a_namespace_keep_their_order(redis: RedisCluster) -> None:
    """With sends to any number of namespaces at once."""
    names, count = spread(redis), 60
    async with cluster_pools(redis) as (one, two):
        members = {name: await one.host(name, "alice") for name in names}
        sent = []
        for at in range(count):
            for name in names:
                if at % 3:
                    sent.append(two.send_nowait(name, "alice", str(at)))
                else:
                    sent.append(asyncio.ensure_future(two.broadcast_message(name, str(at))))
            await asyncio.sleep(0)
        await asyncio.gather(*sent)
        for member in members.values():
            assert await member.wait_sent(count) == [str(at) for at in range(count)]


@async_test
async def test_a_message_of_redis_cli_reaches_the_members(redis: RedisCluster) -> None:
    """``redis-cli -c SPUBLISH 'cluster_pool:{default}' 'Hello'``."""
    async with cluster_pools(redis, 1) as (one,):
        member = await one.host("default", "alice")
        channel = "cluster_pool:{default}"
        assert redis.primary_of(channel).call("SPUBLISH", channel, "Hello") == 1
        assert await member.wait_sent() == ["Hello"]


@async_test
async def test_an_id_has_one_owner(redis: RedisCluster) -> None:
    """The newer connection takes it over, unless it may not; both nodes name the same owner."""
    async with cluster_pools(redis) as (one, two):
        for name in spread(redis):
            first = await one.host(name, "alice")
            second = await two.host(name, "alice")
            assert await first.wait_closed() == (4409, "taken over")
            with pytest.raises(IdTakenError):
                await one.host(name, "alice", on_conflict="reject")
            assert [one.node async for one in two.members(name)] == ["node-2"]
            assert await one.count(name) == 1
            found = await one.locate(name, "alice")
            assert found is not None
            assert found.node == "node-2"
            assert await one.send(name, "alice", "x", confirm=True) is SendResult.DELIVERED
            assert await second.wait_sent() == ["x"]


@async_test
async def test_the_directory_covers_all_primaries(redis: RedisCluster) -> None:
    """Namespaces, nodes, joins and leaves."""
    names = spread(redis)
    channel = f"cluster_pool:{{{names[0]}}}:events"
    async with cluster_pools(redis) as (one, two):
        events = two.watch(names[0])
        joined = asyncio.ensure_future(anext(events))
        primary = redis.primary_of(channel)
        await eventually(lambda: primary.call("PUBSUB", "SHARDNUMSUB", channel)[1] == 1)
        member = await one.host(names[0], "alice")
        for name in names[1:]:
            await one.host(name, "alice")
        assert await two.namespaces() == sorted(names)
        assert [node.id for node in await two.nodes()] == ["node-1", "node-2"]
        await one.remove_connection(member.connection)
        assert await joined == MemberEvent("join", "alice", "node-1")
        assert await anext(events) == MemberEvent("leave", "alice", "node-1")
        await events.aclose()


@async_test
async def test_the_last_one_callback_and_a_drain_work(redis: RedisCluster) -> None:
    """The drain uses the budget that all nodes share."""
    emptied: list[str] = []
    async with cluster_pools(redis) as (one, two):
        first = await one.host("n", "alice")
        await two.host("n", "bob")
        await one.remove_connection(first.connection, lambda: emptied.append("early"))
        members = [await two.host(name, "carol") for name in spread(redis)]
        report = await two.drain_connections(max_per_second=1000)
        assert report.closed == len(members) + 1
        assert [await one.count("n"), emptied] == [0, []]


@async_test
async def test_data_of_a_dead_node_are_removed_at_every_primary(redis: RedisCluster) -> None:
    """They do not count any more as soon as its lease is over."""
    names = spread(redis)
    async with cluster_pools(redis) as (one, two):
        for name in names:
            await two.host(name, "alice")
        await vanish(two)
        await eventually(lambda: not leaked_members(redis), 20)
        assert [await one.count(name) for name in names] == [0] * len(names)
        await abandon(two)


def leaked_members(redis: RedisCluster) -> list[str]:
    """The hashes of members and owners that are there."""
    return [key for key in leaked(redis) if key.endswith((":members", ":owners"))]


@async_test
async def test_one_url_is_enough_and_a_single_redis_is_refused(redis: RedisCluster) -> None:
    """The URL leads to the other nodes; a cluster's node is refused as a single Redis."""
    async with ClusterPool(f"redis+cluster://127.0.0.1:{redis.nodes[4].port}") as pool:
        assert pool.ready
    with pytest.raises(BackplaneUnavailableError, match=r"redis\+cluster://HOST:PORT"):
        await ClusterPool(f"redis://127.0.0.1:{redis.nodes[0].port}").start()


@async_test
async def test_a_sealed_message_is_opened_over_any_primary(redis: RedisCluster) -> None:
    """Messages of one node over several primaries arrive in any order; none is a recording."""
    names = spread(redis)
    async with cluster_pools(redis, secret="not known to strangers") as (one, two):
        members = {name: await two.host(name, "alice") for name in names}
        for at in range(20):
            sends = [one.send(name, "alice", f"{at}", confirm=True) for name in names]
            assert set(await asyncio.gather(*sends)) == {SendResult.DELIVERED}
            await asyncio.gather(*[one.broadcast_message(name, f"b{at}") for name in names])
        for member in members.values():
            assert len(await member.wait_sent(40)) == 40
        assert two.statistics()["dropped_forged"] == 0
