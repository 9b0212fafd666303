"""The options of ``serve``: each has a variable, and the help names both."""

import re

import pytest

from tests.cli.commands import run

pytestmark = pytest.mark.real


def test_help_names_every_option_and_its_variable() -> None:
    """Every setting can be found there."""
    status, out, _ = run("--help")
    assert status == 0
    for command in ("serve", "demo", "send", "broadcast", "members", "nodes", "close", "drain"):
        assert command in out
    out = run("serve", "--help")[1]
    for option in (
        *("host", "port", "node-id", "redis", "prefix", "on-conflict", "app", "admin-port"),
        *("compression", "message-bytes", "outbox-bytes", "lease", "close-rate", "grace", "wait"),
        *("uvloop", "log-level", "json", "agent-port", "agent-host"),
    ):
        assert f"--{option}" in out
        assert f"CLUSTER_POOL_{option.upper().replace('-', '_')}" in out
    assert re.match(r"cluster-pool \d", run("--version")[1])
