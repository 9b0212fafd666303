"""The unit for systemd. Nothing starts it here: no systemd runs in a container."""

import shlex
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from tests.deploy.commands import settings_of, time_to_stop
from tests.deploy.haproxy import shipped_addresses
from tests.servers import DEPLOY

UNIT = DEPLOY / "cluster-pool@.service"
INSTANCES = "012"
needs_systemd = pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="no systemd-analyze: apt-get install systemd"
)


def directives() -> dict[str, list[str]]:
    """The values of each directive; no name is in two sections."""
    found = defaultdict(list)
    for line in UNIT.read_text().splitlines():
        name, separator, value = line.partition("=")
        if separator and not line.startswith("#"):
            found[name].append(value)
    return found


def command(instance: str) -> list[str]:
    """The words of its command line, from ``serve`` on."""
    (line,) = directives()["ExecStart"]
    program, *words = shlex.split(line.replace("%i", instance))
    assert program.endswith("/bin/cluster-pool")
    return words


def test_instances_listen_where_haproxy_looks_for_them() -> None:
    """Ports of nodes and of their agent-checks; no port is used twice."""
    settings = [settings_of(command(instance), {}) for instance in INSTANCES]
    assert [(one["port"], one["agent_port"]) for one in settings] == shipped_addresses()
    names = ("port", "agent_port", "admin_port")
    assert len({one[name] for one in settings for name in names}) == 3 * len(INSTANCES)


def test_a_drain_has_its_time() -> None:
    """SIGKILL comes behind the grace, and a start may wait for Redis."""
    unit, settings = directives(), settings_of(command("0"), {})
    assert float(unit["TimeoutStopSec"][0]) >= time_to_stop(settings)
    assert float(unit["TimeoutStartSec"][0]) > settings["wait"]
    assert unit["KillMode"] == ["mixed"]
    assert unit["Type"] == ["notify"]


@needs_systemd
def test_systemd_reads_the_unit_without_a_word(tmp_path: Path) -> None:
    """No directive is unknown or ignored; the program is another, since ours is not installed."""
    text = UNIT.read_text().replace("/opt/cluster-pool/bin/cluster-pool", sys.executable)
    (tmp_path / UNIT.name).write_text(text)
    unit = str(tmp_path / UNIT.name.replace("@", "@0"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd
def test_systemd_finds_it_shut_in() -> None:
    """Its exposure is "OK": 2.0 at most of 10."""
    options = ("security", "--offline=true", "--threshold=20")
    done = subprocess.run(["systemd-analyze", *options, UNIT], capture_output=True, text=True)
    if "--offline" in done.stderr:
        pytest.skip("this systemd-analyze has no --offline")
    assert done.returncode == 0, done.stdout[-300:]
