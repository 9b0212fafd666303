"""The counters beside channels: their lifetime, and that no message is uncounted because of it."""

import asyncio
from dataclasses import replace

from cluster_pool import Gap, SendResult
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually

MINUTE, DAY = 60_000, 86_400_000


@async_test
async def test_a_broadcast_without_listeners_leaves_a_counter_for_a_minute(
    backend: Backend,
) -> None:
    """With a listener or a member it stays for a day."""
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        await one.host("n", "alice")
        for name in ("n", "nobody"):
            await publisher.broadcast_message(name, "x")
        ttl = backend.keys()
        assert 0 < ttl[f"{backend.prefix}:{{nobody}}:numbers"] <= MINUTE
        assert MINUTE < ttl[f"{backend.prefix}:{{n}}:numbers"] <= DAY


@async_test
async def test_probes_and_replies_make_no_counter(backend: Backend) -> None:
    """They leave nothing behind of a publisher that vanishes."""
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        alice = await one.host("n", "alice")
        for _ in range(2):
            assert await publisher.send("n", "alice", "x", confirm=True) is SendResult.DELIVERED
        taken = await one.host("n", "alice")
        assert await alice.wait_closed() == (4409, "taken over")
        routed = f"{backend.routed_channel('n', one)}:numbers"
        assert backend.keys_of("numbers") == [routed]
        await publisher.broadcast_message("n", "y")
        assert await taken.wait_sent() == ["y"]
        assert one.statistics()["gaps"] == 0


@async_test
async def test_the_counter_of_a_node_that_is_cut_off_lasts_a_day(own_server: RedisServer) -> None:
    """It hears no broadcast meanwhile, but each of them is counted."""
    backend = Backend(own_server)
    async with backend.publisher() as publisher, own_server.network() as proxy:
        timing = replace(FAST, lease=60.0)
        async with Pool(proxy.url, node_id="far", timing=timing) as far:
            gaps: list[Gap] = []
            far.on("gap", gaps.append)
            alice = await far.host("n", "alice")
            await far.send("n", "alice", "targeted", confirm=True)
            await proxy.refuse()
            await eventually(lambda: not far.ready)
            await asyncio.gather(*[publisher.broadcast_message("n", "x") for _ in range(3)])
            assert await publisher.broadcast_message("n", "x") == 0
            assert await publisher.send("n", "alice", "x") is SendResult.UNREACHABLE
            ttl = backend.keys()
            assert ttl["cluster_pool:{n}:numbers"] > MINUTE
            assert ttl[f"{backend.routed_channel('n', far)}:numbers"] > MINUTE
            await proxy.accept()
            await eventually(lambda: gaps)
            assert [(gap.namespaces, gap.exact) for gap in gaps] == [({"n": 4, "": 1}, True)]
            assert alice.connection.close_code is None
