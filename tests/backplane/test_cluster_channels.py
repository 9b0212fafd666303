"""Subscriptions on a cluster: each is at the shard that has its slot."""

import asyncio
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.cluster_channels import LOOK, ClusterChannels
from tests.redis_clusters import away_from_home, cluster_pools, namespaces_of
from tests.support import async_test, eventually
from tools.harness.redis_cluster import RedisCluster


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisCluster]:
    """One for all tests here."""
    with RedisCluster(node_timeout=20) as cluster:
        yield cluster


def listeners(redis: RedisCluster, channel: str) -> int:
    """The number of subscribers of a channel at the primary of its slot."""
    return int(redis.primary_of(channel).call("PUBSUB", "SHARDNUMSUB", channel)[1])


@async_test
async def test_the_channel_of_targeted_items_comes_and_goes_with_its_namespace(
    redis: RedisCluster,
) -> None:
    """Both are at the same primary, and are unsubscribed with the last user."""
    async with cluster_pools(redis, 1) as (one,):
        channels = one._parts.backplane.topology.subscriptions
        for (name,) in namespaces_of(redis).values():
            channel = f"cluster_pool:{{{name}}}"
            wanted = [channels.add(channel) for _ in range(2)]
            await wanted[0].confirmed(deadline_in(5))
            both = (channel, f"{channel}:start:{one._parts.backplane.identity.start}")
            assert [listeners(redis, name) for name in both] == [1, 1]
            wanted[0].end()
            assert [listeners(redis, name) for name in both] == [1, 1]
            wanted[1].end()
            await eventually(lambda both=both: not any(listeners(redis, name) for name in both))


@async_test
async def test_a_subscription_not_confirmed_in_time_fails_and_still_stands(
    redis: RedisCluster,
) -> None:
    """Its shard subscribes it as soon as it can."""
    frozen, name = away_from_home(redis)
    channel = f"cluster_pool:{{{name}}}"
    async with cluster_pools(redis, 1) as (one,):
        wanted = one._parts.backplane.topology.subscriptions.add(channel)
        frozen.server.freeze()
        try:
            with pytest.raises(BackplaneUnavailableError):
                await wanted.confirmed(deadline_in(0.7))
        finally:
            frozen.server.thaw()
        await wanted.confirmed(deadline_in(10))
        assert listeners(redis, channel) == 1
        wanted.end()


@async_test
async def test_a_shard_that_is_far_away_has_time_to_confirm_a_channel() -> None:
    """Each attempt is given more time than the one before."""

    async def confirm_all(names: Sequence[str], deadline: float) -> None:
        try:
            async with asyncio.timeout_at(deadline):
                await asyncio.sleep(1.5 * LOOK)
        except TimeoutError:
            raise BackplaneUnavailableError("no answer in time") from None

    subscriptions = SimpleNamespace(confirm_all=confirm_all)
    shard = SimpleNamespace(subscriptions=subscriptions, listens=lambda name: True)
    topology: Any = SimpleNamespace(of=lambda name: shard)
    channels = ClusterChannels(topology, "start")
    await channels.confirm("cluster_pool:{room}:events", deadline_in(4 * LOOK))
