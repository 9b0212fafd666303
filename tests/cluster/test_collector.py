"""The collector in a registry of prometheus-client: whole, strict, from any thread, at any time."""

import asyncio
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from cluster_pool import ClusterPool, InvalidValueError
from cluster_pool.core.metrics import render
from cluster_pool.testing import FAST
from tests.clusters import Backend, connection_of
from tests.servers import RedisServer
from tests.support import async_test, eventually


def registry_of(*pools: ClusterPool) -> CollectorRegistry:
    """A registry with the metrics of one pool."""
    registry = CollectorRegistry()
    for pool in pools:
        registry.register(pool.metrics())
    return registry


def made(node: str = "a", prefix: str = "cluster_pool") -> ClusterPool:
    """A pool that is not started."""
    return ClusterPool(Backend(None).redis(), node_id=node, prefix=prefix, timing=FAST)


def read(registry: CollectorRegistry) -> dict[str, Metric]:
    """The metrics by name, which both formats and both parsers agree on."""
    text = {one.name: one for one in read_text(generate_latest(registry).decode())}
    strict = {one.name: one for one in read_openmetrics(generate_openmetrics(registry).decode())}
    assert {name: (one.type, len(one.samples)) for name, one in text.items()} == {
        name: (one.type, len(one.samples)) for name, one in strict.items()
    }
    return strict


@async_test
async def test_a_registry_has_what_the_endpoint_has() -> None:
    """The same names, labels and values, since both are made of one description."""
    async with Backend(None).pools(1) as (pool,):
        await pool.host("room", "alice")
        found = read(registry_of(pool))
        assert found["cluster_pool_connections"].samples[0].value == 1
        assert found["cluster_pool_memberships"].samples[0].value == 1
        assert found["cluster_pool_nodes"].samples[0].value == 1
        assert 0 <= found["cluster_pool_lease_age_seconds"].samples[0].value < 60
        told = {one.name: one for one in read_text(render(pool.statistics()))}
        assert {name: [(s.name, s.labels) for s in one.samples] for name, one in told.items()} == {
            name: [(s.name, s.labels) for s in one.samples] for name, one in found.items()
        }


@async_test
async def test_it_can_be_collected_before_the_start_and_after_the_stop() -> None:
    """Then there is no lease, and nothing is held."""
    pool = made()
    registry = registry_of(pool)
    for _ in range(2):
        found = read(registry)
        states = {one.labels["state"] for one in found["cluster_pool_state"].samples if one.value}
        assert states == {"stopped"}
        assert found["cluster_pool_connections"].samples[0].value == 0
        assert found["cluster_pool_nodes"].samples[0].value == 0
        assert found["cluster_pool_redis_up"].samples[0].value == 0
        assert "cluster_pool_lease_age_seconds" not in found
        async with pool:
            assert read(registry)["cluster_pool_ready"].samples[0].value == 1


def test_a_registry_takes_one_collector() -> None:
    """A second one would repeat every family, which no scraper accepts."""
    registry = registry_of(made())
    with pytest.raises(ValueError, match="cluster_pool_info"):
        registry.register(made("b").metrics())


@async_test
async def test_several_pools_go_into_one_collector() -> None:
    """A label tells them apart; a family still comes once."""
    chat, feed = made("a"), made("b", "feed")
    registry = CollectorRegistry()
    registry.register(chat.metrics("chat") | feed.metrics("feed"))
    async with chat:
        found = read(registry)
        ready = {one.labels["pool"]: one.value for one in found["cluster_pool_ready"].samples}
        assert ready == {"chat": 1, "feed": 0}
        lease = found["cluster_pool_lease_age_seconds"].samples
        assert [one.labels for one in lease] == [{"pool": "chat"}]


@pytest.mark.parametrize("names", [("", "b"), ("a", ""), ("a", "a"), ("", "")])
def test_pools_of_one_collector_need_different_names(names: tuple[str, str]) -> None:
    """Else their samples were the same series."""
    one, other = (made().metrics(name) for name in names)
    with pytest.raises(InvalidValueError, match="different names"):
        one | other


@async_test
async def test_ten_threads_collect_while_clients_come_and_go() -> None:
    """Each gets every family once, and no thread raises."""
    async with Backend(None).pools(1) as (pool,):
        registry, loop = registry_of(pool), asyncio.get_running_loop()
        with ThreadPoolExecutor(10) as threads:
            scrapes = [
                loop.run_in_executor(threads, lambda: [read(registry) for _ in range(5)])
                for _ in range(10)
            ]
            number = 0
            while not all(one.done() for one in scrapes):
                websocket = await pool.host(f"room-{number % 7}", f"id-{number}")
                await pool.remove_connection(connection_of(websocket))
                number += 1
            found = [one for scrape in scrapes for one in scrape.result()]
        assert len(found) == 50
        assert len({frozenset(one) for one in found}) == 1
        assert number


@async_test
async def test_durations_are_observed_every_second_without_messages() -> None:
    """By the probe, which travels as messages do; of an idle node, too."""
    async with Backend(None).pools(1) as (pool,):
        registry = registry_of(pool)
        names = "redis_round_trip", "delivery_latency", "event_loop_lag"

        def counts() -> list[float]:
            found = read(registry)
            return [
                next(one.value for one in found[f"cluster_pool_{name}_seconds"].samples
                     if one.name.endswith("_count"))
                for name in names
            ]  # fmt: skip

        first = counts()
        await eventually(
            lambda: all(now > before for now, before in zip(counts(), first, strict=True))
        )
        told = pool.statistics()["delivery_seconds"]
        assert 0 < told["sum"] / told["count"] < 60


@async_test
async def test_it_says_that_redis_is_away(own_server: RedisServer) -> None:
    """It asks Redis nothing, so that it answers at once, and the lease ages."""
    async with ClusterPool(own_server.url, timing=FAST) as pool:
        registry = registry_of(pool)
        own_server.kill()
        await eventually(lambda: not read(registry)["cluster_pool_ready"].samples[0].value)
        assert read(registry)["cluster_pool_lease_age_seconds"].samples[0].value > 0
        await eventually(lambda: not read(registry)["cluster_pool_redis_up"].samples[0].value)
        own_server.start()
        await eventually(lambda: read(registry)["cluster_pool_ready"].samples[0].value)


@async_test
async def test_promtool_finds_nothing_to_object_to() -> None:
    """The names follow the conventions of Prometheus, by its own judgement."""
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool: apt-get install prometheus")
    async with Backend(None).pools(1) as (pool,):
        await pool.host("room", "alice")
        texts = [render(pool.statistics()).encode(), generate_latest(registry_of(pool))]
        for text in texts:
            checked = await asyncio.to_thread(
                subprocess.run, [promtool, "check", "metrics"], input=text, capture_output=True
            )
            assert (checked.returncode, checked.stderr) == (0, b""), checked.stderr.decode()
