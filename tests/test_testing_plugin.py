"""The fixture that pytest finds by itself once the package is installed."""

from collections.abc import Callable

from cluster_pool.testing import FakeCluster


def test_the_fixture_runs_an_async_test(run_cluster: Callable[..., None]) -> None:
    """Without any async plugin."""
    seen = []

    async def test(cluster: FakeCluster) -> None:
        seen.append(len(cluster))

    run_cluster(test, nodes=3)
    assert seen == [3]
