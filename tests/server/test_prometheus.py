"""A real Prometheus scrapes a node, with a token, while Redis is lost and comes back."""

import contextlib
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess
from tools.harness.ports import free_port

pytestmark = [pytest.mark.real, pytest.mark.slow]

CONFIG = """
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: cluster_pool
    authorization: {{credentials: t0ken}}
    static_configs:
      - targets: ["127.0.0.1:{port}"]
"""


class Prometheus:
    """A server that scrapes nodes."""

    def __init__(self, port: int) -> None:
        self._port = port

    def value(self, query: str) -> float | None:
        """The result of a query that has one; None while there is none."""
        asked = urllib.parse.urlencode({"query": query})
        url = f"http://127.0.0.1:{self._port}/api/v1/query?{asked}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                results = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(results[0]["value"][1]) if results else None


@contextlib.contextmanager
def scraping(folder: Path, text: str) -> Iterator[Prometheus]:
    """A Prometheus with such a file, on a port of its own."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("no prometheus: apt-get install prometheus")
    config, own = folder / "prometheus.yml", free_port()
    config.write_text(text)
    process = subprocess.Popen(
        [
            *(program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}"),
            *(f"--web.listen-address=127.0.0.1:{own}", "--log.level=error"),
        ]
    )
    try:
        yield Prometheus(own)
    finally:
        process.terminate()
        process.wait(30)


@async_test
async def test_a_real_prometheus_reads_what_happens(
    own_server: RedisServer, tmp_path: Path
) -> None:
    """Connections, the loss of Redis and its return, and the latency as a quantile."""
    admin = "--admin-port", "0", "--admin-token", "t0ken"
    with (
        NodeProcess(own_server.url, *admin) as node,
        scraping(tmp_path, CONFIG.format(port=node.listening["admin_port"])) as prometheus,
    ):

        async def becomes(query: str, value: float) -> None:
            await eventually(lambda: prometheus.value(query) == value, 60)

        async with node.connect("room", "alice"), node.connect("room", "bob"):
            await becomes("cluster_pool_connections", 2)
            await becomes("cluster_pool_redis_up", 1)
            await becomes("up", 1)
            latency = "cluster_pool_delivery_latency_seconds"
            await eventually(lambda: (prometheus.value(f"{latency}_count") or 0) >= 2, 60)
            quantile = f"histogram_quantile(0.9, rate({latency}_bucket[1m]))"
            await eventually(lambda: 0 < (prometheus.value(quantile) or 0) <= 10, 60)
            own_server.kill()
            await becomes("cluster_pool_redis_up", 0)
            own_server.start()
            await becomes("cluster_pool_redis_up", 1)
            await becomes("cluster_pool_connections", 2)
        await becomes('cluster_pool_closes_total{code="1000"}', 2)
