"""Reads of the cluster's directory by a node or a publisher: their cost and their time-outs."""

import asyncio

import pytest

from cluster_pool import BackplaneUnavailableError, Publisher
from tests.clusters import Backend
from tests.servers import RedisServer
from tests.support import async_test

NAMESPACES = 600


@async_test
async def test_listing_hundreds_of_namespaces_costs_one_round_trip(own_server: RedisServer) -> None:
    """It ends within its one time-out over a slow link."""
    async with Backend(own_server).pools(1) as (one,), own_server.network() as proxy:
        await asyncio.gather(*[one.host(f"n{at:03}", "alice") for at in range(NAMESPACES)])
        async with Publisher(proxy.url, timeout=10) as publisher:
            proxy.delay = 0.05
            names = [f"n{at:03}" for at in range(NAMESPACES)]
            assert await publisher.namespaces() == names
            own_server.command("SET", "cluster_pool:{n000}:owners", "no hash")
            assert set(await publisher.namespaces()) >= set(names[1:])
            with pytest.raises(BackplaneUnavailableError):
                await publisher.namespaces(timeout=0.2)
            own_server.command("DEL", "cluster_pool:{n000}:owners")
