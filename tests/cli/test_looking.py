"""``count``, ``locate``, ``namespaces``, ``watch``, ``drains``; and what an empty list says."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from typer.testing import CliRunner

from cluster_pool.cli import app
from tests.cli.test_cli import run
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, in_thread


@pytest.fixture
def node(own_server: RedisServer) -> Iterator[NodeProcess]:
    with NodeProcess(own_server.url, "--node-id", "a") as one:
        yield one


@async_test
async def test_where_everybody_is(own_server: RedisServer, node: NodeProcess) -> None:
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
async def test_drains_under_way(own_server: RedisServer, node: NodeProcess) -> None:
    """Of which node, how far, how fast and until when."""
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
def test_an_empty_list_says_why(
    own_server: RedisServer, node: NodeProcess, command: tuple[str, ...], what: str
) -> None:
    """On standard error, as a note, while standard output and the status are those of a list."""
    text = f"no node under the prefix 'cluster_pool' {what}"
    assert run(*command, redis=own_server.url) == (0, "", f"cluster-pool: {text}\n")
    status, out, said = run(*command, "--json", redis=own_server.url)
    assert (status, out, json.loads(said)) == (0, "", {"note": text})


@pytest.mark.parametrize(
    "command", [("members", "room"), ("count", "room"), ("namespaces",), ("drains",), ("nodes",)]
)
def test_a_prefix_without_a_node_is_a_no(own_server: RedisServer, command: tuple[str, ...]) -> None:
    """Exit status 1: this prefix, or this Redis, is not where the cluster is."""
    text = "no node lives under the prefix 'cluster_pool'"
    out = "0\n" if command[0] == "count" else ""
    assert run(*command, redis=own_server.url) == (1, out, f"cluster-pool: {text}\n")
    said = run(*command, "--json", redis=own_server.url)[2]
    assert json.loads(said) == {"error": text, "status": 1}


def test_a_namespace_that_nobody_knows_has_no_member(
    own_server: RedisServer, node: NodeProcess
) -> None:
    """The number is printed, and that the name may be misspelt is said."""
    status, out, said = run("count", "rom", redis=own_server.url)
    assert (status, out) == (0, "0\n")
    assert "'rom'" in said


@contextlib.asynccontextmanager
async def watching(
    redis: str, *arguments: str, stdout: int = subprocess.PIPE
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, from the moment at which it watches on."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cluster_pool", "watch", "room", "--redis", redis, *arguments),
        stdout=stdout,
        stderr=subprocess.PIPE,
    )
    try:
        assert process.stderr is not None
        assert b"knows the namespace" in await process.stderr.readline()
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@async_test
async def test_watch_prints_each_event_at_once(own_server: RedisServer, node: NodeProcess) -> None:
    """A line for each, while it happens; Ctrl-C ends it, and it complains of nothing."""
    async with watching(own_server.url, "--json") as in_json, watching(own_server.url) as in_text:
        assert in_json.stdout is not None
        assert in_text.stdout is not None
        async with node.connect("room", "al%20ice"):
            event = {"event": "join", "id": "al ice", "node": "a"}
            assert json.loads(await in_json.stdout.readline()) == event
            assert await in_text.stdout.readline() == b"join\tal ice\ta\n"
        assert json.loads(await in_json.stdout.readline())["event"] == "leave"
        for process in (in_json, in_text):
            process.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(process.wait(), 30) == 130
            assert process.stderr is not None
            assert await process.stderr.read() == b""


@async_test
async def test_watch_goes_on_when_redis_comes_back(
    own_server: RedisServer, node: NodeProcess
) -> None:
    """It says that it was away, as JSON too, that events were lost, and then what happens."""
    async with watching(own_server.url, "--json") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        own_server.kill()
        said = json.loads(await process.stderr.readline())
        assert set(said) == {"note"}
        own_server.start()
        assert json.loads(await process.stdout.readline())["event"] == "lost"
        await eventually(lambda: node.get("/readyz")[0] == 200, 30)
        async with node.connect("room", "alice"):
            while (event := json.loads(await process.stdout.readline()))["event"] == "lost":
                pass
            assert (event["event"], event["id"]) == ("join", "alice")


@async_test
async def test_watch_ends_with_its_reader(own_server: RedisServer, node: NodeProcess) -> None:
    """At once, and not only when the next event cannot be written."""
    reading, writing = os.pipe()
    async with watching(own_server.url, stdout=writing) as process:
        os.close(writing)
        os.close(reading)
        assert await asyncio.wait_for(process.wait(), 30) == 141
        assert process.stderr is not None
        assert await process.stderr.read() == b""
    assert own_server.command("PUBSUB", "CHANNELS", "*{room}*").startswith("*0")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("members",), 2),
        (("members", "{"), 2),
        (("nonsense",), 2),
        (("send", "room", "alice", "x", "--nonsense"), 2),
        (("serve", "--port", "x"), 2),
        (("demo", "--clients", "1"), 2),
        (("close", "room"), 2),
        (("drain",), 2),
        (("nodes", "--redis", "redis://127.0.0.1:1"), 3),
        (("serve", "--port", "0", "--log-level", "error", "--redis", "redis://127.0.0.1:1"), 3),
        (("watch", "room", "--redis", "redis://127.0.0.1:1"), 3),
    ],
)
def test_errors_are_json_too(arguments: tuple[str, ...], status: int) -> None:
    """With --json: one object on standard error, and nothing on standard output."""
    got, out, said = run(*arguments, "--json")
    assert (got, out) == (status, "")
    error = json.loads(said)
    assert error["status"] == status
    assert error["error"]


def test_the_variable_of_json_is_meant_for_errors_too() -> None:
    """Of a command line that cannot be read; behind -- the word is an argument."""
    status, out, said = run("send", "room", "--nonsense", CLUSTER_POOL_JSON="1")
    assert (status, out, json.loads(said)["status"]) == (2, "", 2)
    assert run("send", "room", "--", "--json")[2].startswith("Usage:")


def test_help_has_a_short_name_everywhere() -> None:
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
