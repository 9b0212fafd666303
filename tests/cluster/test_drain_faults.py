"""Drains while Redis is frozen, flushed, restarted or broken, on real servers."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from cluster_pool.cluster.lease_keeper import Keep
from tests.clusters import Backend, Pool
from tests.drains import allowed, ended, gap_of, join, peak_of, times_of
from tests.servers import RedisServer
from tests.support import async_test, eventually

RATE = 80.0
ONE_FLAVOUR = pytest.mark.parametrize("own_server", ["valkey"], indirect=True)
"""For tests of behaviour that all flavours of Redis share."""


def rate_of(pool: Pool) -> float:
    """The closes per second that a pool is granted now; 0 when its drain is over."""
    drain = pool.statistics()["drain"]
    return float(drain["rate"]) if drain else 0.0


async def share(*drainers: Pool) -> None:
    """Wait until the whole budget is granted to these, each a part."""
    await eventually(
        lambda: all(map(rate_of, drainers)) and sum(map(rate_of, drainers)) > RATE * 0.95
    )


def up(pool: Pool) -> bool:
    """Whether a node is with its cluster again."""
    return pool._parts.backplane.shard.up and pool._parts.lease.held and pool._parts.lease.settled


def lasting(backend: Backend) -> list[str]:
    """Keys without a TTL. A share that was not released expires with the drains' key."""
    return [key for key, ttl in backend.keys().items() if ttl < 0]


@ONE_FLAVOUR
@async_test
async def test_redis_freezes_during_drains(own_server: RedisServer) -> None:
    """Closes go on within the budget while the leases last and after, and everything ends."""
    backend = Backend(own_server)
    async with backend.pools(3) as pools:
        one, two, _ = pools
        sockets = await join(one, 200, name="a") + await join(two, 200, name="b")
        drains = [asyncio.create_task(pool.drain_connections(RATE)) for pool in (one, two)]
        await share(one, two)
        own_server.freeze()
        frozen_at = asyncio.get_running_loop().time()
        reports = [await ended(drain) for drain in drains]
        times = times_of(sockets)
        assert [report.closed for report in reports] == [200, 200]
        assert [report.forced for report in reports] == [0, 0]
        assert times[-1] - frozen_at > 3, "all were closed before the leases had ended"
        assert peak_of(times) <= allowed(RATE, 2)
        assert gap_of(times) < 2.25, "it stalled"
        own_server.thaw()
        await eventually(lambda: all(up(pool) for pool in pools))
    assert lasting(backend) == []


@ONE_FLAVOUR
@async_test
async def test_drains_begin_while_redis_is_frozen(own_server: RedisServer) -> None:
    """A drainer that never had a lease uses the rate it would have if all nodes drained."""
    backend = Backend(own_server)
    async with backend.pools(2) as (one, two):
        await eventually(lambda: one._parts.lease.living == two._parts.lease.living == 2)
        sockets = await join(one, 40, name="a") + await join(two, 40, name="b")
        own_server.freeze()
        drains = [asyncio.create_task(pool.drain_connections(RATE)) for pool in (one, two)]
        assert [(await ended(drain)).closed for drain in drains] == [40, 40]
        assert peak_of(times_of(sockets), 0.5) <= allowed(RATE * 0.5, 2) + 0.06 * RATE
        own_server.thaw()
        await eventually(lambda: up(one) and up(two))


@ONE_FLAVOUR
@async_test
async def test_drains_with_little_time_begin_while_redis_is_frozen(own_server: RedisServer) -> None:
    """They do not spend a short grace on waiting for a lease: they close evenly, none by force."""
    backend = Backend(own_server)
    async with backend.pools(1) as (one,):
        sockets = await join(one, 40)
        own_server.freeze()
        report = await one.drain_connections(5, grace=1)
        assert (report.closed, report.forced) == (40, 0)
        assert peak_of(times_of(sockets), 0.05) <= 20
        own_server.thaw()
        await eventually(lambda: up(one))


def flush(server: RedisServer) -> None:
    """The data are gone, the server is there."""
    server.command("FLUSHALL")


def restart(server: RedisServer) -> None:
    """The server is gone, and there again without data."""
    server.kill()
    server.launch()


@pytest.mark.parametrize("harm", [flush, restart])
@async_test
async def test_redis_loses_the_shares_of_the_budget(
    own_server: RedisServer, harm: Callable[[RedisServer], None]
) -> None:
    """No rate grows for two renewals, so the sum stays within the budget; both drains end."""
    backend = Backend(own_server)
    async with backend.pools(3) as pools:
        one, two, _ = pools
        sockets = await join(one, 200, name="a") + await join(two, 160, name="b")
        drains = [asyncio.create_task(pool.drain_connections(RATE)) for pool in (one, two)]
        await share(one, two)
        before = [rate_of(pool) for pool in (one, two)]
        await asyncio.to_thread(harm, own_server)
        calm_until = asyncio.get_running_loop().time() + 2
        while asyncio.get_running_loop().time() < calm_until:
            for pool, rate in zip((one, two), before, strict=True):
                assert rate_of(pool) <= rate * 1.001
            await asyncio.sleep(0.02)  # between two looks at what must hold all the time
        assert [(await ended(drain)).closed for drain in drains] == [200, 160]
        times = times_of(sockets)
        assert peak_of(times) <= allowed(RATE, 2)
        assert gap_of(times) < 2.25, "it stalled"
        await eventually(lambda: all(up(pool) for pool in pools))
    assert lasting(backend) == []


@ONE_FLAVOUR
@async_test
async def test_a_drains_key_with_foreign_content_does_not_stop_a_drain(
    own_server: RedisServer,
) -> None:
    """Foreign content under the key counts as an outage: the drain goes on and ends."""
    backend = Backend(own_server)
    async with backend.pools(2) as (one, two):
        sockets = await join(one, 60)
        own_server.command("SET", one._setup.keys.drains, "no hash")
        assert (await ended(asyncio.create_task(one.drain_connections(RATE)))).closed == 60
        assert peak_of(times_of(sockets)) <= allowed(RATE)
        own_server.command("DEL", one._setup.keys.drains)

        sockets = await join(two, 60)
        own_server.command("HSET", one._setup.keys.drains, "stranger", "draining 7 what")
        drain = asyncio.create_task(two.drain_connections(RATE, force=True))
        await share(two)
        assert (await ended(drain)).closed == 60
        assert await one.drains() == []


@ONE_FLAVOUR
@async_test
async def test_a_drain_waits_while_no_other_node_takes_newcomers(own_server: RedisServer) -> None:
    """A drain without a deadline closes no member until another node can take it."""
    backend = Backend(own_server)
    async with backend.pools(2, headroom=60) as (one, two):
        sockets = await join(one, 100)
        drain = asyncio.create_task(one.drain_connections())
        await eventually(lambda: len(times_of(sockets)) >= 10)
        await two.stop()
        await eventually(lambda: rate_of(one) == 0)
        before = len(times_of(sockets))
        await asyncio.sleep(1.2)  # a renewal in which nobody may be closed
        assert len(times_of(sockets)) == before < 100
        assert not drain.done()
        await two.start()
        report = await ended(drain)
        assert (report.closed, report.cancelled) == (100, False)
        assert peak_of(times_of(sockets)) <= allowed(0.7 * 60)


@ONE_FLAVOUR
@async_test
async def test_a_deadline_closes_all_though_no_other_node_takes_them(
    own_server: RedisServer,
) -> None:
    """Also when the other nodes stopped half-way, and when Redis is away for good."""
    backend = Backend(own_server)
    async with backend.pools(2, headroom=20) as (one, two):
        sockets = await join(one, 80)
        drain = asyncio.create_task(one.drain_connections(grace=6))
        await eventually(lambda: len(times_of(sockets)) >= 10)
        await two.stop()
        await eventually(lambda: one.statistics()["drain"]["budget"] == 0)
        own_server.kill()
        report = await ended(drain)
        assert (report.closed, report.forced) == (80, 0)
        assert report.seconds < 6
        assert peak_of(times_of(sockets)) <= 0.5 * 80, "it hurries at the end"
        own_server.start()


@async_test
async def test_acceptors_that_rejoin_do_not_double_the_budget(backend: Backend) -> None:
    """While one registers its members anew it has two incarnations, and one headroom."""
    async with backend.pools(3, headroom=30.0) as (one, two, three):
        await join(one, 200)
        registering, go_on = asyncio.Semaphore(0), asyncio.Event()

        async def slowly(incarnation: str, keep: Keep) -> None:
            registering.release()
            await go_on.wait()

        drain = asyncio.create_task(one.drain_connections())
        await eventually(lambda: rate_of(one) > 0)
        for pool in (two, three):
            pool._parts.lease_keeper._observer.register_all = slowly  # type: ignore[method-assign]
            pool._parts.lease.unsettle()
            pool._parts.lease_keeper.wake()
        await registering.acquire()
        await registering.acquire()
        grants = []
        ask = one._parts.backplane.drain_budget.lease

        async def asked(*arguments: Any) -> Any:
            grants.append(await ask(*arguments))
            return grants[-1]

        one._parts.backplane.drain_budget.lease = asked  # type: ignore[method-assign]
        await eventually(lambda: len(grants) >= 2)
        assert {grant.budget for grant in grants} == {2 * 30 * 0.7}
        assert {(grant.living, grant.acceptors) for grant in grants} == {(3, 2)}
        go_on.set()
        one.hurry_drain()
        await drain
        await eventually(lambda: two.ready and three.ready)
