"""Answers about a node: readiness with its reason, status without secrets, every number."""

import http
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from cluster_pool import ClusterPool, NodeState
from cluster_pool.cluster.answers import metrics, readiness, status, unlocated
from cluster_pool.core.metrics import GAUGES
from cluster_pool.core.statistics import Counters
from cluster_pool.testing import FAST
from tests.clusters import Backend
from tests.core.test_metrics import parsed
from tests.servers import PASSWORD, RedisServer
from tests.support import async_test


@dataclass
class Observation:
    """A pool, as far as an answer looks at it."""

    ready: bool = True
    state: NodeState = NodeState.ACTIVE
    trouble: str = ""
    address: str = "redis://db:6379"
    counted: dict[str, Any] = field(default_factory=dict)

    def statistics(self) -> dict[str, Any]:
        return self.counted


def test_readiness_is_a_503_with_the_state_and_the_trouble_of_a_node() -> None:
    """And says when to ask again, but not where Redis is: any client can read it."""
    assert readiness(Observation()).status == http.HTTPStatus.OK
    draining = readiness(Observation(ready=False, state=NodeState.DRAINING))
    assert (draining.status, draining.text) == (503, "not ready: draining\n")
    trouble = "cannot reach Redis at redis://db:6379: refused"
    away = readiness(Observation(ready=False, trouble=trouble))
    assert away.text == "not ready: active: cannot reach Redis: refused\n"
    assert away.headers == {"Retry-After": "1"}


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("cannot reach Redis at A: Error 111 connecting to db:6379. Connect …", "Error 111"),
        ("cannot reach Redis at A: Error 2 connecting to /run/redis.sock. No …", "Error 2"),
        ("no link to Redis at A: looking up the name 'db.internal' takes longer", "takes longer"),
        ("Redis refused: MOVED 14439 10.0.0.7:6379 (this is a Redis Cluster)", "MOVED 14439 (this"),
        ("Redis refused: OOM command not allowed when used memory", "OOM command not allowed"),
    ],
)
def test_reasons_are_shown_without_addresses_of_redis(reason: str, told: str) -> None:
    """The rest of the reason is shown to every client."""
    said = unlocated(reason, "A")
    assert told in said
    assert not any(part in said for part in (" at A", "db", "6379", "/run"))


@async_test
async def test_status_and_metrics_can_be_read_before_the_start_and_after_the_stop() -> None:
    """Then the node is not ready, and has no connections."""
    pool = ClusterPool(Backend(None).redis(), node_id="a", timing=FAST)
    for _ in range(2):
        assert json.loads(status(pool).text)["state"] == "stopped"
        assert parsed(metrics(pool).text)["cluster_pool_connections"] == {"": 0}
        assert readiness(pool).text == "not ready: stopped\n"
        async with pool:
            assert json.loads(status(pool).text)["ready"] is True
            assert readiness(pool).text == "ready\n"


@async_test
async def test_status_has_no_password(own_server: RedisServer) -> None:
    """It names Redis, and the versions of what is used."""
    assert PASSWORD in own_server.url
    told = status(ClusterPool(own_server.url))
    assert PASSWORD not in told.text
    assert {"python", "websockets", "redis_py", "redis"} <= json.loads(told.text).keys()


@async_test
async def test_metrics_leave_out_no_number_of_the_statistics(own_server: RedisServer) -> None:
    """Every number of the statistics is among the metrics."""
    known = {*GAUGES, *Counters().as_dict()}
    async with ClusterPool(own_server.url) as pool:
        for name, value in pool.statistics().items():
            assert name in known or not isinstance(value, int | float), name
