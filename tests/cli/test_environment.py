"""Environment variables that the command line reads, and those that it ignores."""

import asyncio
import subprocess
import sys

import pytest

from cluster_pool.cli.environment import set_aside
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, close_code, in_thread

pytestmark = pytest.mark.real

INJECTED = {
    "CLUSTER_POOL_PORT": "tcp://10.0.0.1:80",
    "CLUSTER_POOL_PORT_80_TCP": "tcp://10.0.0.1:80",
    "CLUSTER_POOL_PORT_80_TCP_ADDR": "10.0.0.1",
    "CLUSTER_POOL_PORT_80_TCP_PORT": "80",
    "CLUSTER_POOL_PORT_80_TCP_PROTO": "tcp",
    "CLUSTER_POOL_SERVICE_HOST": "10.0.0.1",
    "CLUSTER_POOL_SERVICE_PORT": "80",
    "CLUSTER_POOL_SERVICE_PORT_HTTP": "80",
    "CLUSTER_POOL_ADMIN_PORT": "tcp://[fd00::1]:8001",
    "CLUSTER_POOL_AGENT_PORT": "udp://10.0.0.2:9",
}


@async_test
async def test_variables_of_kubernetes_services_are_ignored_and_logged(
    own_server: RedisServer,
) -> None:
    """Names of services are no settings; one log line each for those that look like one."""
    with NodeProcess(own_server.url, environment=INJECTED) as node:
        assert node.get("/readyz")[0] == 200
        assert node.listening["admin_port"] is None
        node.signal(15)
        said = (await in_thread(node.finish))[1]
    ignored = [line for line in said.splitlines() if "is ignored: Kubernetes" in line]
    assert len(ignored) == 3
    assert "CLUSTER_POOL_PORT=tcp://10.0.0.1:80" in said
    assert "Traceback" not in said


def test_port_numbers_are_not_taken_for_kubernetes_variables() -> None:
    """A variable for a port has a number."""
    kept = {"CLUSTER_POOL_PORT": "8000", "CLUSTER_POOL_REDIS": "tcp://x", "OTHER_PORT": "tcp://x"}
    assert set_aside({**kept}) == []
    mixed = {**kept, **INJECTED}
    assert len(set_aside(mixed)) == 3
    assert "CLUSTER_POOL_PORT" not in mixed


ACTS = {
    "CLUSTER_POOL_ALL": "1",
    "CLUSTER_POOL_FORCE": "1",
    "CLUSTER_POOL_PAUSE": "1",
    "CLUSTER_POOL_CANCEL": "1",
    "CLUSTER_POOL_DETACH": "1",
    "CLUSTER_POOL_BINARY": "1",
    "CLUSTER_POOL_CONFIRM": "1",
    "CLUSTER_POOL_EXCLUDE": "alice",
    "CLUSTER_POOL_CODE": "4000",
    "CLUSTER_POOL_REASON": "from the environment",
    "CLUSTER_POOL_RATE": "1",
    "CLUSTER_POOL_GRACE": "1",
    "CLUSTER_POOL_ANNOUNCE": "0",
    "CLUSTER_POOL_MESSAGE": "from the environment",
}


@async_test
async def test_variables_do_not_change_what_a_command_does(own_server: RedisServer) -> None:
    """Arguments that choose the clients to close, and the way, come from its command line only."""
    environment = {**ACTS, "CLUSTER_POOL_REDIS": own_server.url}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cluster_pool", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)

    with NodeProcess(own_server.url, "--node-id", "n-1") as node:
        async with node.connect("room", "alice") as alice:
            assert (await in_thread(run, "close", "room")).returncode == 2
            assert (await in_thread(run, "drain")).returncode == 2
            assert (await in_thread(run, "broadcast", "room", "hi")).returncode == 0
            assert await asyncio.wait_for(alice.recv(), 10) == "hi"
            assert (await in_thread(run, "close", "room", "alice")).returncode == 0
            assert await close_code(alice) == 1000
            assert alice.close_reason == ""
        await eventually(lambda: node.get("/readyz")[0] == 200)


def test_only_settings_have_variables() -> None:
    """The address of Redis, the prefix, and the options of `serve`; the help names each."""
    from typer.main import get_command

    from cluster_pool.cli import app

    everywhere = {"redis", "prefix", "secret", "timeout", "as_json"}
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        for parameter in command.params:
            if parameter.envvar and name != "serve":
                assert parameter.name in everywhere, (name, parameter.name)
