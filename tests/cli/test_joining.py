"""``join`` and ``leave``: what they print, and their exit status."""

import json

import pytest

from tests.cli.commands import run
from tests.clusters import Backend, connection_of
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import in_thread

pytestmark = pytest.mark.real


@pytest.mark.slow
@async_test
async def test_commands_have_a_connection_join_and_leave(own_server: RedisServer) -> None:
    """As text and as JSON; 1 for an id that is taken."""
    redis = own_server.url
    async with Backend(own_server).pools(1) as (one,):
        alice, _ = await one.host("app", "alice"), await one.host("room:7", "bob")
        joined = await in_thread(lambda: run("join", "app", "alice", "room:7", redis=redis))
        assert joined == (0, "delivered\n", "")
        assert connection_of(alice).namespaces == ("app", "room:7")
        status, out, _ = await in_thread(
            lambda: run("leave", "app", "alice", "room:7", "--json", redis=redis)
        )
        assert (status, json.loads(out)) == (0, {"result": "delivered"})
        options = "--as", "bob", "--on-conflict", "reject"
        taken = await in_thread(
            lambda: run("join", "app", "alice", "room:7", *options, redis=redis)
        )
        assert taken == (1, "refused\n", "")
        assert connection_of(alice).namespaces == ("app",)
