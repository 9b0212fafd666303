"""The compose files agree with each other and with the image. See also tests/test_compose.py."""

import contextlib
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from websockets.asyncio.client import connect

from tests.compose import Compose
from tests.deploy.commands import settings_of, time_to_stop
from tests.deploy.test_image import environment as of_the_image
from tests.server.test_prometheus import scraping
from tests.servers import DEPLOY
from tests.support import async_test, eventually
from tests.test_compose import PASSWORDS
from tools.harness.haproxy import haproxy
from tools.harness.nodes import NodeProcess, in_thread
from tools.harness.ports import accepts, free_port

pytestmark = pytest.mark.real
FILES = sorted(path.name for path in DEPLOY.glob("compose*.yaml"))
WHOLE = "compose.yaml"
PROMETHEUS = DEPLOY / "observability" / "prometheus.yml"


def services(file: str) -> dict[str, Any]:
    """The services of a file, by name."""
    return Compose(file, **PASSWORDS).services


def nodes(file: str) -> dict[str, Any]:
    """Those that are nodes."""
    return {name: one for name, one in services(file).items() if name.startswith("node-")}


def settings(node: dict[str, Any]) -> dict[str, Any]:
    """How a node is set up in its container."""
    return settings_of(node["command"], of_the_image() | node["environment"])


@pytest.mark.parametrize("file", FILES)
def test_nodes_have_the_time_that_they_need(file: str) -> None:
    """For their drain before SIGKILL, and for Redis to come."""
    assert nodes(file)
    for node in nodes(file).values():
        assert node["image"] == "cluster-pool"
        assert (DEPLOY / node["build"]["context"] / node["build"]["dockerfile"]).is_file()
        assert float(node["stop_grace_period"].removesuffix("s")) >= time_to_stop(settings(node))
        assert settings(node)["wait"]


@pytest.mark.parametrize("file", FILES)
def test_ports_are_for_this_machine_alone(file: str) -> None:
    """Nothing authenticates clients in these files."""
    for name, service in services(file).items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ())), name


def test_haproxy_knows_the_nodes_and_they_believe_it() -> None:
    """By name, port and agent port; its address is the only proxy."""
    haproxy, ours = services(WHOLE)["haproxy"], nodes(WHOLE)
    for at, (name, node) in enumerate(ours.items(), 1):
        at_work = settings(node)
        assert haproxy["environment"][f"CLUSTER_POOL_NODE{at}"] == f"{name}:{at_work['port']}"
        assert haproxy["environment"][f"CLUSTER_POOL_AGENT{at}"] == str(at_work["agent_port"])
        assert at_work["agent_host"] == at_work["admin_host"] == "0.0.0.0"
        address = haproxy["networks"]["default"]["ipv4_address"]
        assert at_work["forwarded_allow_ips"] == address
    text = (DEPLOY / "haproxy.cfg").read_text()
    assert all(f"${{{name}-" in text for name in haproxy["environment"])


def test_prometheus_asks_every_node_with_the_token() -> None:
    """At its admin port; the token is a file that the service has."""
    (job,) = yaml.safe_load(PROMETHEUS.read_text())["scrape_configs"]
    (targets,) = job["static_configs"]
    ours = nodes(WHOLE)
    assert targets["targets"] == [
        f"{name}:{settings(node)['admin_port']}" for name, node in ours.items()
    ]
    (secret,) = services(WHOLE)["prometheus"]["secrets"]
    assert job["authorization"]["credentials_file"] == f"/run/secrets/{secret}"


@pytest.mark.parametrize("file", FILES)
def test_mounted_files_exist(file: str) -> None:
    """Docker would make a folder in the place of one that does not."""
    for service in services(file).values():
        for volume in service.get("volumes", ()):
            assert (DEPLOY / volume.partition(":")[0]).exists(), volume


def prometheus_file(folder: Path, ports: list[int]) -> str:
    """The file that Prometheus reads, for nodes at these ports of this machine, and in a hurry."""
    token = folder / "token"
    token.write_text(PASSWORDS["ADMIN_TOKEN"])
    config = yaml.safe_load(PROMETHEUS.read_text())
    config["global"]["scrape_interval"] = "1s"
    (job,) = config["scrape_configs"]
    job["authorization"]["credentials_file"] = str(token)
    job["static_configs"] = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
    return yaml.safe_dump(config)


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("haproxy") or not shutil.which("prometheus"),
    reason="missing: apt-get install haproxy prometheus",
)
@async_test
async def test_the_services_of_the_file_work_together(tmp_path: Path) -> None:
    """As processes: Redis with the shipped rights, three nodes, HAProxy, and Prometheus."""
    front = free_port()
    with contextlib.ExitStack() as stack:
        compose = stack.enter_context(Compose(WHOLE, **PASSWORDS))
        compose.start("redis-1")
        started = []
        for name, node in nodes(WHOLE).items():
            ours = node["environment"] | {
                "CLUSTER_POOL_ADMIN_PORT": "0",
                "CLUSTER_POOL_AGENT_PORT": "0",
            }
            process = NodeProcess(compose.url(name), environment=ours)
            started.append(stack.enter_context(process))
        addresses = [(one.port, int(one.listening["agent_port"])) for one in started]
        admins = [int(one.listening["admin_port"]) for one in started]
        assert (await in_thread(started[0].get, "/metrics", admins[0]))[0] == 401
        stack.enter_context(haproxy(addresses, front, tmp_path))
        text = prometheus_file(tmp_path, admins)
        prometheus = stack.enter_context(scraping(tmp_path, text))
        await eventually(lambda: accepts(front), 30)
        await eventually(lambda: prometheus.value('sum(up{job="cluster-pool"})') == 3, 60)
        async with contextlib.AsyncExitStack() as clients:
            for _ in range(6):
                url = f"ws://127.0.0.1:{front}/ws/room"
                await clients.enter_async_context(connect(url, proxy=None))
            await eventually(lambda: prometheus.value("sum(cluster_pool_connections)") == 6, 60)


@pytest.mark.skipif(
    not shutil.which("check-jsonschema"), reason="pip install check-jsonschema: not installed"
)
@pytest.mark.parametrize("file", FILES)
def test_the_compose_specification_permits_it(file: str) -> None:
    """By its own schema."""
    options = ("--builtin-schema", "vendor.compose-spec")
    done = subprocess.run(["check-jsonschema", *options, DEPLOY / file], capture_output=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(not shutil.which("promtool"), reason="apt-get install prometheus")
def test_prometheus_reads_its_file(tmp_path: Path) -> None:
    """The file of the token is another here."""
    token = tmp_path / "token"
    token.write_text("token")
    text = PROMETHEUS.read_text().replace("/run/secrets/admin_token", str(token))
    (tmp_path / PROMETHEUS.name).write_text(text)
    done = subprocess.run(
        ["promtool", "check", "config", tmp_path / PROMETHEUS.name], capture_output=True
    )
    assert done.returncode == 0, done.stderr
