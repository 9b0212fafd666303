"""Output that is closed, full, or lacks letters: no traceback, and all that fits is printed."""

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.cli.commands import run
from tests.servers import RedisServer
from tools.harness.nodes import NodeProcess

pytestmark = pytest.mark.real

NAME = "nöde-日本-[/]"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_names_are_printed_in_any_locale(own_server: RedisServer, encoding: str) -> None:
    """As they are, or escaped; as JSON always the same names."""
    with NodeProcess(own_server.url, "--node-id", NAME) as node:
        assert node.listening["node"] == NAME
        raw = subprocess.run(
            [sys.executable, "-m", "cluster_pool", "nodes", "--redis", own_server.url],
            capture_output=True,
            env={**os.environ, "PYTHONIOENCODING": encoding},
        )
        assert (raw.returncode, raw.stderr) == (0, b"")
        assert raw.stdout.startswith((NAME.encode(), NAME.encode(encoding, "backslashreplace")))
        listed = run("nodes", "--json", redis=own_server.url, PYTHONIOENCODING=encoding)[1]
        assert json.loads(listed)["node"] == NAME


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_log_is_written_in_any_locale(own_server: RedisServer, encoding: str) -> None:
    """Each line is JSON, with any letters in the message."""
    environment = {"PYTHONIOENCODING": encoding}
    arguments = ("--node-id", NAME, "--log-format", "json")
    with NodeProcess(own_server.url, *arguments, environment=environment) as node:
        assert node.get("/readyz")[0] == 200
        node.signal(signal.SIGTERM)  # and it says so
        said = [json.loads(line) for line in node.finish()[1].splitlines()]
        assert said
        assert {line["node"] for line in said} == {NAME}


def test_arguments_are_read_in_a_locale_without_utf_8(own_server: RedisServer) -> None:
    """The package reads its own files independently of the locale."""
    locale = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    assert run("count", "room", redis=own_server.url, **locale)[:2] == (1, "0\n")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">/dev/full"])
@pytest.mark.parametrize("command", ["count room", "count room --json", "nodes --bogus --json"])
def test_closed_or_full_output_ends_without_a_traceback(
    own_server: RedisServer, command: str, closed: str
) -> None:
    """The exit status is right, and no internals are printed."""
    whole = f"{sys.executable} -m cluster_pool {command} --redis {own_server.url} {closed}"
    done = subprocess.run(whole, shell=True, capture_output=True, text=True)
    assert done.returncode == (2 if "bogus" in command else 1)
    assert "Traceback" not in done.stderr
