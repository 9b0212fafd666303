"""The command line as a user runs it: output, exit statuses, environment, standard input."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import NodeProcess, in_thread


def run(
    *arguments: str, redis: str | None = None, stdin: bytes = b"", **environment: str
) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of one command."""
    done = subprocess.run(
        [sys.executable, "-m", "cluster_pool", *arguments, *(("--redis", redis) if redis else ())],
        input=stdin,
        capture_output=True,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", **environment},
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@async_test
async def test_a_session_at_the_terminal(own_server: RedisServer) -> None:
    """send, broadcast, members, nodes and close say what happened, as text and as JSON."""
    redis = own_server.url
    with NodeProcess(redis, "--node-id", "a") as node:
        async with node.connect("room", "alice") as alice, node.connect("room", "bob") as bob:
            assert await in_thread(
                lambda: run("send", "room", "alice", "hi", "--confirm", redis=redis)
            ) == (0, "delivered\n", "")
            status, out, _ = await in_thread(
                lambda: run("send", "room", "alice", "-", "--json", redis=redis, stdin=b"piped")
            )
            assert (status, json.loads(out)) == (0, {"result": "routed"})
            await in_thread(
                lambda: run("send", "room", "alice", "-", "--binary", redis=redis, stdin=b"\xff")
            )
            assert [await alice.recv() for _ in range(3)] == ["hi", "piped", b"\xff"]
            status, out, _ = await in_thread(
                lambda: run("broadcast", "room", "all", "--exclude", "alice", redis=redis)
            )
            assert (status, out) == (0, "handed to 1 node\n")
            assert await bob.recv() == "all"
            status, out, _ = await in_thread(lambda: run("members", "room", "--json", redis=redis))
            members = [json.loads(line) for line in out.splitlines()]
            assert sorted(members, key=lambda member: member["id"]) == [
                {"id": "alice", "node": "a"},
                {"id": "bob", "node": "a"},
            ]
            status, out, _ = await in_thread(lambda: run("nodes", "--json", redis=redis))
            (listed,) = map(json.loads, out.splitlines())
            assert (listed["node"], listed["state"]) == ("a", "active")
            status, out, _ = await in_thread(
                lambda: run("close", "room", "alice", "eve", "--code", "4000", redis=redis)
            )
            assert (status, out) == (1, "alice: delivered\neve: absent\n")
            await alice.wait_closed()
            assert alice.close_code == 4000
            assert (await in_thread(lambda: run("close", "room", "--all", redis=redis)))[0] == 0
            await bob.wait_closed()
            assert (await in_thread(lambda: run("members", "room", redis=redis)))[:2] == (0, "")


def test_no_is_an_exit_status_of_1(own_server: RedisServer) -> None:
    """Absent members and broadcasts that nobody heard."""
    assert run("send", "room", "nobody", "x", redis=own_server.url)[:2] == (1, "absent\n")
    assert run("broadcast", "room", "x", redis=own_server.url)[:2] == (1, "handed to 0 nodes\n")
    status, out, _ = run("broadcast", "room", "x", "--json", redis=own_server.url)
    assert (status, json.loads(out)) == (1, {"nodes": 0})


@pytest.mark.parametrize(
    "arguments",
    [
        ("send", "room", "a\nb", "x"),
        ("send", "{", "a", "x"),
        ("send", "room"),
        ("close", "room"),
        ("close", "room", "a", "--all"),
        ("close", "room", "a", "--code", "1005"),
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
def test_bad_usage_is_an_exit_status_of_2(arguments: tuple[str, ...]) -> None:
    """Said on standard error, without a traceback, before anything is done."""
    status, out, said = run(*arguments)
    assert status == 2, said
    assert out == ""
    assert said
    assert "Traceback" not in said


@pytest.mark.parametrize("command", [("nodes",), ("send", "n", "a", "x"), ("serve", "--port", "0")])
def test_redis_away_is_an_exit_status_of_3(command: tuple[str, ...]) -> None:
    """The address is named, the password is not."""
    status, out, said = run(*command, redis="redis://me:s3cret@127.0.0.1:1/0")
    assert (status, out) == (3, "")
    assert "redis://me:***@127.0.0.1:1/0" in said
    assert "s3cret" not in said
    assert "Traceback" not in said


def test_options_come_from_the_environment(own_server: RedisServer) -> None:
    """CLUSTER_POOL_SOME_OPTION is --some-option, whatever the command."""
    status, _, said = run("nodes", CLUSTER_POOL_REDIS=own_server.url)
    assert (status, said) == (1, "cluster-pool: no node lives under the prefix 'cluster_pool'\n")
    status, out, _ = run(
        "broadcast", "n", "x", CLUSTER_POOL_REDIS=own_server.url, CLUSTER_POOL_JSON="1"
    )
    assert json.loads(out) == {"nodes": 0}


def test_serve_waits_for_redis_if_told_to(own_server: RedisServer) -> None:
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
def test_a_signal_while_it_waits_is_a_clean_stop(number: int) -> None:
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


def test_a_port_that_is_taken_is_bad_usage(own_server: RedisServer) -> None:
    """Said with its number; nothing stays in Redis."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        status, out, said = run("serve", "--port", port, redis=own_server.url)
    assert (status, out) == (2, "")
    assert port in said
    assert "Traceback" not in said
    assert run("nodes", redis=own_server.url)[:2] == (1, "")


def test_a_node_id_of_another_live_node(own_server: RedisServer) -> None:
    """The cluster says no: 1."""
    with NodeProcess(own_server.url, "--node-id", "a"):
        status, out, said = run("serve", "--port", "0", "--node-id", "a", redis=own_server.url)
    assert (status, out) == (1, "")
    assert "'a'" in said or " a " in said
    assert "Traceback" not in said


@async_test
async def test_a_reader_that_has_had_enough(own_server: RedisServer) -> None:
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


def test_serve_with_an_embedded_server() -> None:
    """It says which URL the other commands take, and leaves nothing behind."""
    node = subprocess.Popen(
        [
            *(sys.executable, "-m", "cluster_pool", "serve", "--port", "0"),
            *("--redis", "embedded"),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert node.stdout is not None
        lines = [node.stdout.readline() for _ in range(3)]
        assert lines[0].startswith("node ")
        found = re.search(r"--redis (unix://(\S+))", lines[1])
        assert found is not None
        assert "PUBLISH 'cluster_pool:{default}' 'Hello world!'" in lines[2]
        status, out, _ = run("nodes", "--json", redis=found.group(1))
        assert (status, json.loads(out)["state"]) == (0, "active")
        node.send_signal(signal.SIGTERM)
        assert node.wait(20) == 0
        assert not Path(found.group(2)).parent.exists()
    finally:
        node.kill()
        node.communicate()


def test_help_tells_every_option() -> None:
    """What can be set can be found."""
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
