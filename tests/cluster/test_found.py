"""What the state machine has found, each by itself."""

import asyncio
import contextlib

from cluster_pool import BackplaneUnavailableError
from cluster_pool.testing import fake_cluster
from tests.support import async_test


@async_test
async def test_a_stop_ends_although_the_link_fails_at_that_moment() -> None:
    """A cancellation that meets the failure of a socket is not forgotten."""
    async with fake_cluster(nodes=1) as cluster:
        session = cluster[0]._session
        cluster.server.script_cache.clear()
        with contextlib.suppress(BackplaneUnavailableError):
            await session.script(asyncio.get_running_loop().time() + 1, "publish", [])
        stopping = asyncio.create_task(session.stop())
        done, _ = await asyncio.wait([stopping], timeout=5)
        assert done
