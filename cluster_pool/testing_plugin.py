"""The pytest fixture; pytest finds it automatically when the package is installed."""

from collections.abc import Callable
from typing import Any

import pytest


@pytest.fixture
def run_cluster() -> Callable[..., None]:
    """``run_cluster(test, nodes=2)`` runs ``async def test(cluster)`` with a fake cluster.

    For tests without an async plugin; with one, use ``fake_cluster`` directly.
    """
    from cluster_pool.testing import run_with_cluster

    def run(test: Any, nodes: int = 2, **options: Any) -> None:
        run_with_cluster(test, nodes, **options)

    return run
