"""Revocations in Redis: kept as long as the longest of their times, and no longer."""

import asyncio
import time

import pytest

from cluster_pool import AuthenticationError
from tests.cluster.test_revocations import in_an_hour, member
from tests.clusters import Backend, Pool
from tests.support import async_test


@async_test
async def test_an_entry_whose_time_is_over_goes_away(backend: Backend) -> None:
    """A token counts again, its entry goes with the next revocation, and the keys have a ttl."""
    async with backend.pools(1) as (pool,):
        await pool.revoke("short", time.time() + 0.3)
        with pytest.raises(AuthenticationError):
            await member(pool, "a", "short")
        await asyncio.sleep(0.4)
        await member(pool, "a", "short")
        await pool.revoke("long", in_an_hour())
        keys = pool._setup.keys
        client = backend.client()
        for key in (keys.revoked, keys.revocations):
            assert await client.zrange(key, 0, -1) == [b"long"]
            assert 3500 < await client.ttl(key) <= 3600
        await client.aclose()


@async_test
async def test_a_longer_revocation_stands(backend: Backend) -> None:
    """A second one may prolong the first, and never shortens it."""
    async with backend.pools() as (one, two):
        long = in_an_hour()
        await one.revoke("t", long)
        await two.revoke("t", time.time() + 0.2)
        client = backend.client()
        assert await client.zscore(one._setup.keys.revoked, "t") == int(long * 1000)
        await client.aclose()
        await asyncio.sleep(0.3)
        for pool in (one, two):
            with pytest.raises(AuthenticationError):
                await member(pool, "a", "t")


@async_test
async def test_foreign_entries_keep_nobody_from_revoking_and_reading(backend: Backend) -> None:
    """Scores that are no times: a node starts, and the next revocation is recorded and read."""
    async with backend.pools(1) as (pool,), backend.client() as client:
        keys = pool._setup.keys
        await client.zadd(keys.revoked, {"far": float("inf"), "low": float("-inf"), "x": 1e300})
        moments = {"far": float("inf"), "low": float("-inf"), b"\xff": 5, "x": 7, "none": 8.5}
        await client.zadd(keys.revocations, moments)
        assert await pool.revoke("t", in_an_hour()) == 1
        async with Pool(backend.redis(), prefix=backend.prefix, timing=pool.timing) as later:
            for one in (pool, later):
                for token_id in ("t", "x"):
                    with pytest.raises(AuthenticationError):
                        await member(one, "a", token_id)


@async_test
async def test_a_clock_that_was_set_back_hides_no_revocation(backend: Backend) -> None:
    """None was left that could have told the later time."""
    async with backend.pools(1) as (pool,), backend.client() as client:
        keys = pool._setup.keys
        ahead = (time.time() + 3600) * 1_000_000
        await client.zadd(keys.revoked, {"early": int(in_an_hour() * 1000)})
        await client.zadd(keys.revocations, {"early": int(ahead)})
        await pool._parts.revocations.read()
        await client.delete(keys.revoked, keys.revocations)
        await pool.revoke("late", in_an_hour())
        for token_id in ("early", "late"):
            with pytest.raises(AuthenticationError):
                await member(pool, "a", token_id)
