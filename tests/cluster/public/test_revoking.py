"""Revocation as a user's program calls it, with an event loop or without."""

import time

import pytest

from cluster_pool import Auth, Identity, PoolClosedError, Publisher, SyncPublisher
from tests.cluster.test_revocations import member
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import in_thread


@async_test
async def test_a_sync_publisher_revokes(own_server: RedisServer) -> None:
    """As in a view or a worker, in a thread without an event loop."""
    backend = Backend(own_server)

    def use() -> None:
        with SyncPublisher(own_server.url, prefix=backend.prefix) as publisher:
            assert publisher.revoke("t") == 2

    async with backend.pools() as (one, two):
        tabs = [await member(one, "a", "t"), await member(two, "b", "t")]
        await in_thread(use)
        for tab in tabs:
            assert await tab.wait_closed() == (4401, "revoked")


@async_test
async def test_a_revocation_lasts_as_long_as_a_token_may_be_old() -> None:
    """``Auth.max_token_age``; a day where there is no ``auth``."""
    backend = Backend(None)
    auth = Auth(authenticate=lambda request: Identity(), max_token_age=60)
    async with backend.pools(1, auth=auth) as (pool,), backend.publisher() as publisher:
        await pool.revoke("t")
        await publisher.revoke("u")
        key, client = pool._setup.keys.revoked, backend.client()
        for token_id, seconds in (("t", 60), ("u", 86_400)):
            until = await client.zscore(key, token_id)
            assert time.time() + seconds - 20 < until / 1000 <= time.time() + seconds
        await client.aclose()


@async_test
async def test_revoke_needs_a_start() -> None:
    """As every call does."""
    for caller in (Pool(Backend(None).redis()), Publisher(Backend(None).redis())):
        with pytest.raises(PoolClosedError):
            await caller.revoke("t")
