"""Members without a WebSocket."""

from cluster_pool import ClusterPool
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.silent import join


@async_test
async def test_silent_members_are_registered_and_told_of_their_close(
    servers: dict[str, RedisServer],
) -> None:
    """They are counted as every member is."""
    codes: list[int] = []
    async with ClusterPool(servers["valkey"].url, prefix="cluster_pool:silent") as pool:
        members = await join(pool, "n", ["a", "b"], lambda code, reason: codes.append(code))
        assert await pool.count("n") == len(members) == 2
        await pool.close("n", "a", 4000)
        await eventually(lambda: codes == [4000])
