"""Calls about users as a user's program makes them, with an event loop or without."""

import pytest

from cluster_pool import Delivery, PoolClosedError, Publisher, SyncPublisher
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import in_thread


@async_test
async def test_a_sync_publisher_reaches_users(own_server: RedisServer) -> None:
    """As in a view or a worker, in a thread without an event loop."""
    backend = Backend(own_server)

    def use() -> None:
        with SyncPublisher(own_server.url, prefix=backend.prefix) as publisher:
            assert publisher.online(["42", "43"]) == {"42": 2, "43": 0}
            told = publisher.send_user("42", "ready", confirm=True)
            assert told == Delivery(delivered=2)
            assert not publisher.send_user("43", "ready")
            assert publisher.close_user("42", 4401, "signed out") == 2

    async with backend.pools() as (one, two):
        tabs = [await one.host("room", "a", user="42"), await two.host("room", "b", user="42")]
        await in_thread(use)
        for tab in tabs:
            assert await tab.wait_closed() == (4401, "signed out")
            assert tab.sent == ["ready"]


@async_test
async def test_calls_about_users_need_a_start() -> None:
    """As every call does."""
    for caller in (Pool(Backend(None).redis()), Publisher(Backend(None).redis())):
        for call in (caller.send_user("42", "x"), caller.online("42"), caller.close_user("42")):
            with pytest.raises(PoolClosedError):
                await call
