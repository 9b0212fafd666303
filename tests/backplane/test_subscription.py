"""References to channels, and their ends."""

import asyncio

from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.subscription import end_all
from tests.backplane.test_subscriptions import listeners, shard_of
from tests.clusters import Backend
from tests.servers import RedisServer
from tests.support import async_test, eventually


@async_test
async def test_several_subscriptions_end_together(own_server: RedisServer) -> None:
    """Those that have ended already are skipped."""
    async with Backend(own_server).pools(1) as (one,):
        subscriptions = shard_of(one).subscriptions
        names = [f"cluster_pool:{{{at}}}" for at in range(3)]
        wanted = [subscriptions.add(name) for name in names]
        await asyncio.gather(*[one.confirmed(deadline_in(5)) for one in wanted])
        wanted[0].end()
        end_all(wanted)
        assert not any(subscriptions.listens(name) for name in names)
        await eventually(lambda: listeners(own_server, names[2])() == 0)


@async_test
async def test_a_subscription_may_end_after_the_stop() -> None:
    """The stop drops all; ending one afterwards does nothing."""
    async with Backend(None).pools(1) as (one,):
        shard = shard_of(one)
        subscription = shard.subscriptions.add("cluster_pool:{n}")
        await subscription.confirmed(deadline_in(5))
    subscription.end()
    assert not shard.listens("cluster_pool:{n}")
