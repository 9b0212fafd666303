"""``send``, ``broadcast``, ``close`` and ``close-user``: their reports of what they have done."""

import json

import pytest

from tests.cli.commands import run
from tests.clusters import Backend
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import NodeProcess, in_thread

pytestmark = pytest.mark.real


def test_absent_member_or_no_listener_exits_with_1(own_server: RedisServer) -> None:
    """An absent member, and a broadcast without a listener."""
    assert run("send", "room", "nobody", "x", redis=own_server.url)[:2] == (1, "absent\n")
    assert run("broadcast", "room", "x", redis=own_server.url)[:2] == (1, "handed to 0 nodes\n")
    status, out, _ = run("broadcast", "room", "x", "--json", redis=own_server.url)
    assert (status, json.loads(out)) == (1, {"nodes": 0})
    assert run("broadcast", "room", "x", "--confirm", redis=own_server.url)[:2] == (
        1,
        "delivered to 0, on 0 nodes\n",
    )


@pytest.mark.slow
@async_test
async def test_commands_say_what_happened_as_text_and_as_json(own_server: RedisServer) -> None:
    """send, broadcast, members, nodes and close say what happened, as text and as JSON."""
    redis = own_server.url
    with NodeProcess(redis, "--node-id", "a") as node:
        async with node.connect("room", "alice") as alice, node.connect("room", "bob") as bob:
            assert await in_thread(
                lambda: run("send", "room", "alice", "hi", "--confirm", redis=redis)
            ) == (0, "delivered\n", "")
            assert await in_thread(
                lambda: run("send", "room", "alice", "there?", "--confirm-client", redis=redis)
            ) == (0, "received\n", "")
            status, out, _ = await in_thread(
                lambda: run("send", "room", "alice", "-", "--json", redis=redis, stdin=b"piped")
            )
            assert (status, json.loads(out)) == (0, {"result": "routed"})
            await in_thread(
                lambda: run("send", "room", "alice", "-", "--binary", redis=redis, stdin=b"\xff")
            )
            heard = [await alice.recv() for _ in range(4)]
            assert heard == ["hi", "there?", "piped", b"\xff"]
            status, out, _ = await in_thread(
                lambda: run("broadcast", "room", "all", "--exclude", "alice", redis=redis)
            )
            assert (status, out) == (0, "handed to 1 node\n")
            assert await bob.recv() == "all"
            status, out, _ = await in_thread(
                lambda: run("broadcast", "room", "all", "--confirm", redis=redis)
            )
            assert (status, out) == (0, "delivered to 2, on 1 node\n")
            status, out, _ = await in_thread(
                lambda: run("broadcast", "room", "x", "--confirm-client", "--json", redis=redis)
            )
            assert (status, json.loads(out)["received"]) == (0, 2)
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


@pytest.mark.slow
@async_test
async def test_a_user_is_closed_everywhere(own_server: RedisServer) -> None:
    """As text and as JSON; 1 when no node heard it."""
    redis = own_server.url
    async with Backend(own_server).pools() as (one, two):
        tabs = [await one.host("n", "a", user="42"), await two.host("n", "b", user="42")]
        options = "--code", "4401", "--reason", "signed out"
        revoked = await in_thread(lambda: run("revoke", "t", redis=redis))
        assert revoked == (0, "told 2 nodes\n", "")
        closed = await in_thread(lambda: run("close-user", "42", *options, redis=redis))
        assert closed == (0, "told 2 nodes\n", "")
        for tab in tabs:
            assert await tab.wait_closed() == (4401, "signed out")
        status, out, _ = await in_thread(lambda: run("close-user", "nobody", "--json", redis=redis))
        assert (status, json.loads(out)) == (1, {"nodes": 0})
