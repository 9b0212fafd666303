"""The users of each channel: several of one, and the clean-up when the last has gone."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError, ClusterPool, Gap
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.shard import Shard
from tests.clusters import Backend
from tests.servers import RedisServer
from tests.support import async_test, eventually


def shard_of(pool: ClusterPool) -> Shard:
    """The shard of a pool that runs."""
    parts: Any = pool._parts
    shard: Shard = parts.backplane.shard
    return shard


def listeners(server: RedisServer, channel: str) -> Callable[[], int]:
    """A function that asks how many clients listen to a channel."""
    return lambda: int(server.command("PUBSUB", "NUMSUB", channel).rsplit(":", 1)[1])


@async_test
async def test_a_channel_is_unsubscribed_with_the_last_of_its_users(
    own_server: RedisServer,
) -> None:
    """A watcher and a membership may use the same, and either may go first."""
    heard = listeners(own_server, "cluster_pool:{n}")
    async with Backend(own_server).pools(1) as (one,):
        shard = shard_of(one)
        subscriptions = shard.subscriptions
        first, second = (subscriptions.add("cluster_pool:{n}") for _ in range(2))
        for subscription in (first, second):
            await subscription.confirmed(deadline_in(5))
        assert heard() == 1
        first.end()
        first.end()
        assert shard.listens("cluster_pool:{n}")
        alice = await one.host("n", "alice")
        second.end()
        assert await one.broadcast_message("n", "x") == 1
        assert await alice.wait_sent() == ["x"]
        await one.remove_connection(alice.connection)
        await eventually(lambda: not shard.listens("cluster_pool:{n}"))
        await eventually(lambda: heard() == 0)


@async_test
async def test_a_subscription_that_is_not_confirmed_in_time_still_stands(
    own_server: RedisServer,
) -> None:
    """The next generation subscribes it, although its caller has given up."""
    async with own_server.network() as proxy:
        through = proxy.url
        async with Backend(own_server).pools(1) as (_,), ClusterPool(through) as one:
            subscription = shard_of(one).subscriptions.add("cluster_pool:{late}")
            proxy.hold()
            with pytest.raises(BackplaneUnavailableError):
                await subscription.confirmed(deadline_in(0.1))
            await proxy.cut()
            proxy.heal()
            await subscription.confirmed(deadline_in(10))
            assert listeners(own_server, "cluster_pool:{late}")() == 1


@async_test
async def test_a_message_from_before_a_subscription_counts_nothing_as_missed(
    own_server: RedisServer,
) -> None:
    """It was on its way when the channel was dropped, and is heard when that is wanted again: what
    was published between the two subscriptions was for nobody here."""
    name = "cluster_pool:{n}"
    heard = listeners(own_server, name)
    gaps: list[Gap] = []
    async with (
        own_server.network() as proxy,
        Backend(own_server).pools(1) as (one,),
        ClusterPool(proxy.url) as two,
    ):
        two.on("gap", gaps.append)
        await one.host("n", "alice")
        subscriptions = shard_of(two).subscriptions
        former = subscriptions.add(name)
        await former.confirmed(deadline_in(5))
        proxy.hold(upwards=False)
        await one.broadcast_message("n", "on its way")
        former.end()
        await eventually(lambda: heard() == 1)
        for number in range(5):
            await one.broadcast_message("n", str(number))
        confirming = asyncio.create_task(subscriptions.add(name).confirmed(deadline_in(10)))
        await eventually(lambda: heard() == 2)
        proxy.heal()
        await confirming
        await one.broadcast_message("n", "heard")
        numbers = shard_of(two).receiver.numbers
        await eventually(lambda: numbers._last[name][1] == 7)
        assert numbers.take_missed() == ({}, True)
    assert gaps == []
