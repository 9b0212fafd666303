"""The command line as a whole: usage errors, variables, output into a pipe."""

import json
import subprocess
import sys

import pytest

from tests.cli.commands import run
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import NodeProcess, in_thread

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "room", "a\nb", "x"),
        ("send", "{", "a", "x"),
        ("send", "room"),
        ("close", "room"),
        ("close", "room", "a", "--all"),
        ("close", "room", "a", "--code", "1005"),
        ("close", "~user:42", "a"),
        ("close-user", "x" * 251),
        ("close-user", "42", "--code", "1005"),
        ("members", "~user:42"),
        ("broadcast", "room", "x" * 100_000, "--timeout", "0"),
        ("serve", "--port", "70000"),
        ("serve", "--on-conflict", "perhaps"),
        ("serve", "--app", "nowhere:handler"),
        ("serve", "--app", "json"),
        ("serve", "--app", "json:dumps"),
        ("serve", "--app", ".json:dumps"),
        ("serve", "--close-rate", "inf"),
        ("serve", "--lease", "nan"),
        ("serve", "--node-id", "{"),
        ("serve", "--log-level", "loud"),
        ("serve", "--admin-port", "0", "--admin-host", "0.0.0.0"),
        ("serve", "--agent-port", "65536"),
        ("serve", "--secret", "short"),
        ("broadcast", "n", "x", "--secret", "short"),
        ("nodes", "--redis", "http://x"),
        ("nodes", "--redis", "redis://127.0.0.1:1/0?nonsense=1"),
        ("nodes", "--redis", "redis://127.0.0.1:1/1"),
        ("serve", "--redis", "redis://127.0.0.1:1/1"),
        ("send", "n", "a", "x", "--redis", "unix:///nowhere?db=1"),
        ("budget", "--redis", "redis://127.0.0.1:1?db=1"),
        ("drain",),
        ("drain", "{"),
        ("drain", "node", "--all"),
        ("drain", "node", "--rate", "0"),
        ("drain", "node", "--grace", "nan"),
        ("drain", "node", "--pause", "--cancel"),
        ("activate",),
        ("budget", "much"),
        ("budget", "-1"),
        ("--nonsense",),
    ],
)
def test_bad_usage_exits_with_2_before_anything_is_done(arguments: tuple[str, ...]) -> None:
    """The error is on standard error, without a traceback, before anything is done."""
    status, out, said = run(*arguments)
    assert status == 2, said
    assert out == ""
    assert said
    assert "Traceback" not in said


def test_options_are_read_from_the_environment(own_server: RedisServer) -> None:
    """CLUSTER_POOL_SOME_OPTION is --some-option for every command."""
    status, _, said = run("nodes", CLUSTER_POOL_REDIS=own_server.url)
    assert (status, said) == (1, "cluster-pool: no node lives under the prefix 'cluster_pool'\n")
    status, out, _ = run(
        "broadcast", "n", "x", CLUSTER_POOL_REDIS=own_server.url, CLUSTER_POOL_JSON="1"
    )
    assert json.loads(out) == {"nodes": 0}


@async_test
async def test_output_into_head_ends_without_an_error(own_server: RedisServer) -> None:
    """`members … | head` ends without a complaint."""
    with NodeProcess(own_server.url) as node:
        clients = [await node.connect("room", f"{at:03}" + "x" * 250) for at in range(400)]
        command = (
            f"{sys.executable} -m cluster_pool members room --redis {own_server.url} | head -1"
        )
        done = await in_thread(
            lambda: subprocess.run(command, shell=True, capture_output=True, text=True)
        )
        assert (len(done.stdout.splitlines()), done.stderr) == (1, "")
        for client in clients:
            client.transport.abort()
