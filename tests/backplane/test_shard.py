"""The pauses between connections to a Redis that accepts but does not serve."""

import time

import pytest

from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually


@pytest.mark.parametrize("right", ["evalsha", "subscribe"])
@async_test
async def test_a_generation_that_never_comes_up_does_not_shorten_the_pauses(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture, right: str
) -> None:
    """Each pause is longer than the last one, and the reason is logged once."""
    async with (
        own_server.network() as proxy,
        Pool(proxy.url, node_id="node-1", timing=FAST) as pool,
    ):
        await pool.host("n", "alice")
        own_server.command("ACL", "SETUSER", "cluster_pool", f"-{right}")
        await proxy.cut()
        await eventually(lambda: not pool.ready)
        before, began = proxy.accepted, time.monotonic()
        caplog.clear()
        await eventually(lambda: proxy.accepted >= before + 2 * 7, 30)
        assert time.monotonic() - began > 1.5
        assert len(caplog.records) <= 4
        own_server.command("ACL", "SETUSER", "cluster_pool", f"+{right}")
        await eventually(lambda: pool.ready)
        assert await pool.count("n") == 1


@async_test
async def test_a_redis_that_is_behind_its_own_clock_is_left(backend: Backend) -> None:
    """A probe that is late by the clock of Redis ends the generation; the next one asks again."""
    async with backend.pools(1) as (one,):
        before = one._parts.backplane.shard.generation
        one._parts.backplane.shard.clock.hear(0, 0.0, 0.0)
        await eventually(lambda: one._parts.backplane.shard.generation > before and one.ready, 30)
        assert "behind its own time" in str(one._parts.backplane.shard.generations.last_error)


@async_test
async def test_an_internal_error_ends_one_generation_only(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged as an error."""
    async with backend.pools(1) as (one,):
        before, tell = (
            one._parts.backplane.shard.generation,
            one._parts.backplane.shard.health.hear_time,
        )

        async def fail(link: object) -> None:
            one._parts.backplane.shard.health.hear_time = tell  # type: ignore[method-assign]
            raise ValueError("ours")

        one._parts.backplane.shard.health.hear_time = fail  # type: ignore[method-assign]
        await eventually(lambda: one._parts.backplane.shard.generation > before and one.ready, 30)
        assert [record.levelname for record in caplog.records].count("ERROR") == 1
