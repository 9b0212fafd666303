"""``drain``, ``activate`` and ``budget`` against real nodes, as a person or a program runs them."""

import json
import signal
import subprocess
import sys
from typing import Any

from redis import Redis

from cluster_pool import Publisher
from cluster_pool.core.results import DrainProgress
from tests.cli.commands import run
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.nodes import NodeProcess, close_code, in_thread


def lines(out: str) -> list[dict[str, Any]]:
    """The objects printed with ``--json``."""
    return [json.loads(line) for line in out.splitlines()]


def started(*arguments: str, redis: str) -> "subprocess.Popen[bytes]":
    """A command that keeps running."""
    return subprocess.Popen(
        [sys.executable, "-m", "cluster_pool", *arguments, "--redis", redis],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


@async_test
async def test_drain_closes_clients_and_activate_takes_newcomers_again(
    own_server: RedisServer,
) -> None:
    """Both drain at one pace, with progress; the nodes stay drained until they are activated."""
    redis = own_server.url
    with (
        NodeProcess(redis, "--node-id", "a") as a,
        NodeProcess(redis, "--node-id", "b") as b,
        NodeProcess(redis, "--node-id", "c"),
    ):
        clients = [await node.connect("room", f"{at}") for at in range(60) for node in (a, b)][:60]
        clients += [await b.connect("room", f"b{at}") for at in range(60)]
        status, out, said = await in_thread(
            lambda: run("drain", "a", "b", "--rate", "60", "--announce", "0", "--json", redis=redis)
        )
        assert (status, said) == (0, "")
        last = {line["node"]: line for line in lines(out)}
        assert {line["state"] for line in last.values()} == {"drained"}
        assert max(line["cluster_rate"] for line in lines(out)) <= 61
        assert sum(line["total"] for line in last.values()) >= 90
        assert {await close_code(client) for client in clients} <= {1012, 4409}
        async with Publisher(redis) as publisher:
            states = {node.id: node.state.value for node in await publisher.nodes()}
            assert states == {"a": "drained", "b": "drained", "c": "active"}
            assert a.get("/readyz")[0] == 503
            assert (await in_thread(lambda: run("activate", "a", "b", redis=redis)))[0] == 0
            await eventually(lambda: a.get("/readyz")[0] == 200)
            async with a.connect("room", "again"):
                assert await publisher.locate("room", "again") is not None


@async_test
async def test_drain_goes_on_when_its_command_is_interrupted(own_server: RedisServer) -> None:
    """The interrupted command says so; the drain can still be paused, resumed and cancelled."""
    redis = own_server.url
    with NodeProcess(redis, "--node-id", "a") as a, NodeProcess(redis, "--node-id", "b"):
        clients = [await a.connect("room", f"{at}") for at in range(40)]
        command = started("drain", "a", "--rate", "2", "--announce", "0", "--json", redis=redis)
        assert command.stdout is not None
        await in_thread(command.stdout.readline)
        command.send_signal(signal.SIGINT)
        _, said = await in_thread(command.communicate)
        assert command.returncode == 130
        assert b"carry on" in said

        async def told(*arguments: str) -> tuple[int, str, str]:
            answer: tuple[int, str, str] = await in_thread(
                lambda: run("drain", "a", *arguments, redis=redis)
            )
            return answer

        async with Publisher(redis) as publisher:

            async def drain() -> DrainProgress:
                (found,) = await publisher.drains()
                return found

            before = (await drain()).remaining

            async def goes_on() -> bool:
                return (await drain()).remaining < before

            await eventually(goes_on)
            assert await told("--pause") == (0, "a: pause\n", "")

            async def paused() -> bool:
                return (await drain()).state == "paused"

            await eventually(paused)
            assert await told("--resume") == (0, "a: resume\n", "")
            assert await told("--cancel") == (0, "a: cancel\n", "")
            await eventually(lambda: a.get("/readyz")[0] == 200)
            assert await publisher.drains() == []
        assert any(client.close_code is None for client in clients)
        status, _, said_now = await told("--cancel")
        assert status == 1
        assert "nothing to cancel" in said_now
        for client in clients:
            await client.close()


def test_refused_drain_exits_with_1(own_server: RedisServer) -> None:
    """Unknown nodes, no living node, and no other node that would take the clients."""
    redis = own_server.url
    assert run("drain", "--all", redis=redis)[0] == 1
    with NodeProcess(redis, "--node-id", "a") as a:
        status, _, said = run("drain", "nobody", redis=redis)
        assert status == 1
        assert "alive are: a" in said
        for nodes in (("a",), ("--all",)):
            status, _, said = run("drain", *nodes, redis=redis)
            assert status == 1
            assert "no other live node" in said
        assert a.get("/readyz")[0] == 200
        assert run("drain", "--all", "--force", "--announce", "0", redis=redis)[0] == 0
        assert run("drain", "a", "--detach", "--grace", "5", redis=redis)[:2] == (0, "a: drain\n")


def test_budget_is_shown_set_and_removed(own_server: RedisServer) -> None:
    """Shown, set and taken back."""
    redis = own_server.url
    assert "70 %" in run("budget", redis=redis)[1]
    assert json.loads(run("budget", "33", "--json", redis=redis)[1]) == {"budget": 33}
    assert run("budget", redis=redis)[1] == "33 a second\n"
    assert json.loads(run("budget", "none", "--json", redis=redis)[1]) == {"budget": None}
    with Redis.from_url(f"unix://{own_server.path}") as client:
        assert client.keys("*") == []
