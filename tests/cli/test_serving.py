"""``serve``: its messages when it starts, when it cannot start, and when it is stopped at once."""

import contextlib
import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_pool import InvalidValueError
from cluster_pool.cli.serving import load_app
from tests.cli.commands import run
from tests.servers import RedisServer
from tools.harness.nodes import NodeProcess

pytestmark = pytest.mark.real


def test_serve_with_wait_starts_when_redis_does(own_server: RedisServer) -> None:
    """With --wait it starts when Redis does."""
    own_server.kill()
    node = subprocess.Popen(
        [
            *(sys.executable, "-m", "cluster_pool", "serve", "--json", "--port", "0"),
            *("--redis", own_server.url, "--wait", "30"),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        time.sleep(0.5)  # it says nothing while it waits: that it goes on is all there is to see
        assert node.poll() is None
        own_server.start()
        assert node.stdout is not None
        assert json.loads(node.stdout.readline())["event"] == "listening"
        node.send_signal(signal.SIGINT)
        assert node.wait(20) == 0
    finally:
        node.kill()
        node.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_during_the_wait_for_redis_exits_with_0(number: int) -> None:
    """Nothing was started; the exit status is 0."""
    node = subprocess.Popen(
        [
            *(sys.executable, "-m", "cluster_pool", "serve", "--port", "0", "--wait", "30"),
            *("--redis", "redis://127.0.0.1:1"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert node.stderr is not None
        assert "waiting" in node.stderr.readline()
        node.send_signal(number)
        assert node.wait(20) == 0
        assert "Traceback" not in node.stderr.read()
    finally:
        node.kill()
        node.communicate()


def test_port_in_use_exits_with_2_and_leaves_nothing_in_redis(own_server: RedisServer) -> None:
    """The error names the port; nothing stays in Redis."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, out, said = run("serve", "--port", port, redis=own_server.url)
    assert (status, out) == (2, "")
    assert port in said
    assert "Traceback" not in said
    assert run("nodes", redis=own_server.url)[:2] == (1, "")


def test_node_id_of_a_live_node_exits_with_1(own_server: RedisServer) -> None:
    """The cluster refuses it: status 1."""
    with NodeProcess(own_server.url, "--node-id", "a"):
        status, out, said = run("serve", "--port", "0", "--node-id", "a", redis=own_server.url)
    assert (status, out) == (1, "")
    assert "'a'" in said or " a " in said
    assert "Traceback" not in said


@contextlib.contextmanager
def embedded(kind: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A node with a Redis of its own, and the three lines that it prints first."""
    node = subprocess.Popen(
        [
            *(sys.executable, "-m", "cluster_pool", "serve", "--port", "0"),
            *("--redis", kind),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert node.stdout is not None
        yield node, [node.stdout.readline() for _ in range(3)]
    finally:
        node.kill()
        node.communicate()


def ends_well(node: subprocess.Popen[str], url: str) -> None:
    """Other commands find it under its URL, and a SIGTERM ends it."""
    status, out, _ = run("nodes", "--json", redis=url)
    assert (status, json.loads(out)["state"]) == (0, "active")
    node.send_signal(signal.SIGTERM)
    assert node.wait(20) == 0


def test_serve_embedded_prints_its_redis_url_and_leaves_no_folder() -> None:
    """It prints the URL for the other commands, and leaves nothing behind."""
    with embedded("embedded") as (node, lines):
        assert lines[0].startswith("node ")
        found = re.search(r"--redis (unix://(\S+))", lines[1])
        assert found is not None
        assert "PUBLISH 'cluster_pool:{default}' 'Hello world!'" in lines[2]
        ends_well(node, found.group(1))
        assert not Path(found.group(2)).parent.exists()


def test_serve_embedded_cluster_prints_a_url_that_other_commands_take() -> None:
    """And a command of redis-cli that publishes to its members."""
    with embedded("embedded-cluster") as (node, lines):
        found = re.search(r"--redis (redis\+cluster://\S+)", lines[1])
        assert found is not None
        assert re.search(r"redis-cli -c -p \d+ SPUBLISH 'cluster_pool:{default}' ", lines[2])
        ends_well(node, found.group(1))


APPS = """
async def handler(pool, connection): ...

class Callable:
    async def __call__(self, pool, connection): ...

instance = Callable()
def function(pool, connection): ...
"""


def test_app_is_loaded_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An async function, or an object whose call is one; anything else is refused with its name."""
    (tmp_path / "apps_of_this_test.py").write_text(APPS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("handler", "instance"):
        assert callable(load_app(f"apps_of_this_test:{name}"))
    for wrong in ("function", "Callable", "nothing", ""):
        with pytest.raises(InvalidValueError, match="--app"):
            load_app(f"apps_of_this_test:{wrong}")
