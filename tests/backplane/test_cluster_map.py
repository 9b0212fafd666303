"""The owners of slots, read from any node that answers."""

import asyncio
import gc
from collections.abc import Iterator, Sequence

import pytest

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane import cluster_map
from cluster_pool.backplane.address import Address
from cluster_pool.backplane.cluster_map import ClusterMap
from cluster_pool.backplane.slots import SLOTS, Group
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.redis_cluster import RedisCluster


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisCluster]:
    """One for all tests here."""
    with RedisCluster() as cluster:
        yield cluster


@async_test
async def test_the_map_has_every_slot_and_callers_share_a_reading(redis: RedisCluster) -> None:
    """A second reading with the same answer is no change."""
    told: list[Sequence[Group]] = []
    map = ClusterMap(Address(redis.url, 2.0), told.append)
    await asyncio.gather(*[map.fresh() for _ in range(5)])
    await map.fresh()
    assert told == [map.groups]
    ports = [group.primary[1] for group in sorted(map.groups, key=lambda one: one.ranges)]
    assert ports == [one.port for one in redis.primaries]
    assert sum(len(list(group.slots)) for group in map.groups) == SLOTS
    assert {len(group.ids) for group in map.groups} == {2}
    await asyncio.sleep(0.2)
    await map.fresh(map.groups[0].ids)
    assert len(told) == 1
    await map.stop()


@async_test
async def test_silent_nodes_do_not_delay_the_map(redis: RedisCluster) -> None:
    """One is frozen and one has gone; the third is asked a moment later."""
    frozen = redis.nodes[3]
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{frozen.port},127.0.0.1:{redis.nodes[4].port}"
    map = ClusterMap(Address(url, 2.0), lambda groups: None)
    frozen.server.freeze()
    try:
        async with asyncio.timeout(0.9):
            await map.fresh()
    finally:
        frozen.server.thaw()
    assert len(map.groups) == 3
    await map.stop()


@async_test
async def test_a_failure_that_comes_with_an_answer_is_not_logged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both are read in one turn of the loop, and the failure is not what the caller gets."""
    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: logged.append(context))
    asked = 0
    both = asyncio.Event()

    async def ask(endpoint: object) -> list[Group]:
        nonlocal asked
        asked += 1
        last = asked == 2
        if last:
            both.set()
        await both.wait()
        if last:
            return []
        raise BackplaneUnavailableError("it has just gone")

    monkeypatch.setattr(cluster_map, "_ask", ask)
    for _ in range(10):
        asked = 0
        both.clear()
        map = ClusterMap(Address("redis+cluster://127.0.0.1:1,127.0.0.1:2", 2.0), len)
        await map.fresh()
        await map.stop()
    gc.collect()
    assert logged == []


@async_test
async def test_a_map_is_read_when_one_is_asked_for(redis: RedisCluster) -> None:
    """Once for any number of requests."""
    map = ClusterMap(Address(redis.url, 2.0), lambda groups: None)
    map.look_again()
    map.look_again()
    async with asyncio.timeout(1):
        await map.wanted()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await map.wanted()


@async_test
async def test_the_reason_for_a_missing_map_is_told(own_server: RedisServer) -> None:
    """A single Redis is no cluster, and the address may have no listener."""
    port = own_server.folder / "redis.sock"
    assert port.exists()
    map = ClusterMap(Address("redis+cluster://127.0.0.1:1", 2.0), lambda groups: None)
    with pytest.raises(BackplaneUnavailableError, match=r"no node of the cluster .* says"):
        await map.fresh()
