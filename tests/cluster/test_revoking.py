"""The call that revokes a token: its arguments, and its order to the nodes."""

import time

import pytest

from cluster_pool import InvalidValueError
from cluster_pool.core.claims import LATEST
from tests.cluster.test_revocations import member
from tests.clusters import Backend
from tests.support import async_test


@async_test
async def test_with_a_secret_the_order_is_authenticated(backend: Backend) -> None:
    """A stranger's order is refused and counted; a publisher with the secret is obeyed at once."""
    secret = "not known to strangers"
    publisher, stranger = backend.publisher(secret=secret), backend.publisher()
    async with backend.pools(1, secret=secret) as (pool,), publisher, stranger:
        websocket = await member(pool, "a", "t")
        before = pool.statistics()["dropped_forged"]
        assert await stranger.revoke("u", timeout=0.5) == 0
        assert pool.statistics()["dropped_forged"] == before + 1
        assert await publisher.revoke("t") == 1
        assert await websocket.wait_closed() == (4401, "revoked")


@async_test
async def test_bad_arguments_are_refused() -> None:
    """Seconds from now are in the past: a revocation that would end at once is an error.

    So is a time that Redis cannot count to: no later revocation could be recorded beside it.
    """
    far = (1e16, 1e18, 1e300, 1e308, 10**400)
    async with Backend(None).pools(1) as (pool,):
        for until in (3600, time.time() - 1, float("nan"), float("inf"), "soon", True, *far):
            with pytest.raises(InvalidValueError, match="until"):
                await pool.revoke("t", until)  # type: ignore[arg-type]
        for token_id in ("", "x" * 257, "\ud800", 7, None):
            with pytest.raises(InvalidValueError, match="token id"):
                await pool.revoke(token_id)  # type: ignore[arg-type]
        assert await pool.revoke("{any} \n character 🦊") == 1
        assert await pool.revoke("for ever", LATEST // 1000) == 1
