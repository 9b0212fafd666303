"""``count``, ``locate``, ``namespaces``, ``drains``; and the note with an empty list."""

import json

import pytest
from typer.testing import CliRunner

from cluster_pool.cli import app
from tests.cli.commands import run
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, in_thread

pytestmark = pytest.mark.real


@async_test
async def test_count_locate_and_namespaces_tell_where_members_are(
    own_server: RedisServer, node: NodeProcess
) -> None:
    """Numbers, names and owners, as text and as JSON."""
    async with node.connect("room", "alice"), node.connect("b\u00e4r", "bob"):

        async def said(*arguments: str) -> tuple[int, str, str]:
            return await in_thread(lambda: run(*arguments, redis=own_server.url))

        assert await said("count", "room") == (0, "1\n", "")
        assert await said("count", "room", "--json") == (0, '{"count": 1}\n', "")
        assert await said("locate", "room", "alice") == (0, "a\n", "")
        assert await said("locate", "room", "alice", "--json") == (
            0,
            '{"id": "alice", "node": "a"}\n',
            "",
        )
        assert await said("namespaces") == (0, "b\u00e4r\nroom\n", "")
        _, out, _ = await said("namespaces", "--json")
        assert [json.loads(line)["namespace"] for line in out.splitlines()] == ["b\u00e4r", "room"]
        status, out, told = await said("locate", "room", "eve")
        assert (status, out) == (1, "")
        assert "'eve'" in told
        status, out, told = await said("locate", "room", "eve", "--json")
        assert (status, json.loads(out)) == (1, {"id": "eve", "node": None})
        assert json.loads(told)["status"] == 1


@async_test
async def test_drains_lists_each_drain_with_its_progress(
    own_server: RedisServer, node: NodeProcess
) -> None:
    """Its node, progress, rate and deadline."""
    async with node.connect("room", "alice"), node.connect("room", "bob"):
        begin = ("drain", "a", "--rate", "0.1", "--grace", "60", "--announce", "0", "--detach")
        assert (await in_thread(lambda: run(*begin, redis=own_server.url)))[0] == 0

        async def listed() -> str:
            return str((await in_thread(lambda: run("drains", "--json", redis=own_server.url)))[1])

        drain = json.loads(await eventually(listed))
        assert (drain["node"], drain["state"], drain["total"]) == ("a", "draining", 2)
        assert 0 < drain["time_left"] < 60
        _, out, said = await in_thread(lambda: run("drains", redis=own_server.url))
        assert out.startswith("a\tdraining\t")
        assert out.endswith(" s left\n")
        assert said == ""


@pytest.mark.parametrize(
    ("command", "what"),
    [
        (("members", "rom"), "knows the namespace 'rom'"),
        (("namespaces",), "has any member"),
        (("drains",), "drains"),
    ],
)
def test_empty_list_explains_itself_on_standard_error(
    own_server: RedisServer, node: NodeProcess, command: tuple[str, ...], what: str
) -> None:
    """A note goes to standard error, while standard output and the status are those of a list."""
    text = f"no node under the prefix 'cluster_pool' {what}"
    assert run(*command, redis=own_server.url) == (0, "", f"cluster-pool: {text}\n")
    status, out, said = run(*command, "--json", redis=own_server.url)
    assert (status, out, json.loads(said)) == (0, "", {"note": text})


@pytest.mark.parametrize(
    "command", [("members", "room"), ("count", "room"), ("namespaces",), ("drains",), ("nodes",)]
)
def test_prefix_without_a_node_exits_with_1(
    own_server: RedisServer, command: tuple[str, ...]
) -> None:
    """Exit status 1: the prefix or the Redis is not that of the cluster."""
    text = "no node lives under the prefix 'cluster_pool'"
    out = "0\n" if command[0] == "count" else ""
    assert run(*command, redis=own_server.url) == (1, out, f"cluster-pool: {text}\n")
    said = run(*command, "--json", redis=own_server.url)[2]
    assert json.loads(said) == {"error": text, "status": 1}


def test_unknown_namespace_has_no_members_and_exits_with_0(
    own_server: RedisServer, node: NodeProcess
) -> None:
    """The number is printed, with a note that the name may be misspelt."""
    status, out, said = run("count", "rom", redis=own_server.url)
    assert (status, out) == (0, "0\n")
    assert "'rom'" in said


def test_short_help_option_works_for_every_command() -> None:
    """``-h`` is ``--help``; the list of commands fits 80 columns and is not cut."""
    runner = CliRunner()
    out = runner.invoke(app, ["-h"], terminal_width=80).stdout
    listed = out.partition("Commands:\n")[2].partition("\n\n")[0]
    assert "..." not in listed
    assert max(map(len, out.splitlines())) <= 80
    assert "Exit status: 0 done; 1 the cluster said no" in out
    commands = [line.split()[0] for line in listed.splitlines()]
    assert {"count", "locate", "namespaces", "watch", "drains"} < set(commands)
    for command in commands:
        shown = runner.invoke(app, [command, "-h"])
        assert (shown.exit_code, "-h, --help" in shown.stdout) == (0, True), command
