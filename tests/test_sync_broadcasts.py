"""Broadcasts of a publisher without an event loop."""

import asyncio

import pytest

from cluster_pool import BroadcastReport, SyncPublisher
from tests.clusters import Backend
from tests.servers import RedisServer
from tests.support import async_test


@pytest.mark.parametrize("own_server", ["valkey"], indirect=True)
@async_test
async def test_they_give_a_number_or_a_report(own_server: RedisServer) -> None:
    async with Backend(own_server).pools() as (one, two):
        await one.host("n", "alice", user="42")
        bob = await two.host("n", "bob")

        def work() -> tuple[object, ...]:
            with SyncPublisher(own_server.url) as publisher:
                return (
                    publisher.broadcast_message("n", "1"),
                    publisher.broadcast_json_message("n", 2, ["alice"], timeout=5),
                    publisher.broadcast_message("n", "3", exclude_users=["42"], confirm=True),
                    publisher.broadcast_json_message("n", 4, confirm="client"),
                )

        reports = BroadcastReport(2, delivered=1), BroadcastReport(2, delivered=2)
        assert await asyncio.to_thread(work) == (2, 2, *reports)
        assert await bob.wait_sent(4) == ["1", "2", "3", "4"]
