"""Clients of ``serve`` get the last messages of a namespace first, where a rule permits it."""

from collections.abc import Iterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cluster_pool import Auth, History, Identity, Publisher
from tests.server.framing import OK, framed, node, url
from tests.servers import RedisServer
from tests.support import async_test
from tools.harness.nodes import NodeProcess

pytestmark = pytest.mark.real

ROOMS = {"room*": History()}
RULES = ("room*=publish,rewind",)


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file."""
    with RedisServer("valkey") as server:
        yield server


@async_test
async def test_a_client_gets_the_last_messages_behind_its_welcome(redis: RedisServer) -> None:
    """With their positions and authors, ahead of what is live; a plain client gets them bare."""
    async with (
        node(redis, history=ROOMS, namespace_rules=RULES) as (pool, server),
        framed(server, "first") as first,
    ):
        for number in range(5):
            await pool.broadcast_message("room", str(number))
        assert await first.ask(publish="room", m="hi") == OK
        async with (
            framed(server, "second", query="&rewind=3") as second,
            connect(url(server, "plain", query="&rewind=2")) as plain,
        ):
            await pool.broadcast_message("room", "live")
            frames = [await second.read() for _ in range(4)]
            assert [frame["m"] for frame in frames] == ["3", "4", "hi", "live"]
            past = await pool.history("room", last=4)
            assert [frame["p"] for frame in frames] == [one.position for one in past]
            assert frames[2]["from"] == {"id": "first"}
            assert [await plain.recv() for _ in range(3)] == ["4", "hi", "live"]


@async_test
async def test_the_past_needs_a_rule(redis: RedisServer) -> None:
    """403 before anything is claimed; a number that is none is 400."""

    def known(_: object) -> Identity:
        return Identity(user="42", namespaces=["room-2", "hall"])

    rules, auth = ("room-2=rewind",), Auth(authenticate=known)
    async with node(redis, history=ROOMS, namespace_rules=rules, auth=auth) as (pool, server):
        for namespace, query, status in (
            ("hall", "5", 403),
            ("other", "5", 403),
            ("room-2", "x", 400),
        ):
            with pytest.raises(InvalidStatus) as refused:
                await connect(url(server, "a", namespace, f"&rewind={query}"))
            assert refused.value.response.status_code == status
            assert await pool.count(namespace) == 0
        async with connect(url(server, "a", "room-2", "&rewind=5")) as client:
            await pool.broadcast_message("room-2", "live")
            assert await client.recv() == "live"


@async_test
async def test_a_node_process_keeps_histories(redis: RedisServer) -> None:
    """The options of the command line; the variable has several rules."""
    rules = {"CLUSTER_POOL_HISTORY": "room:*=2,60,1MiB lobby=5"}
    options = ("--namespace-rule", "room:*=rewind")
    with NodeProcess(redis.url, *options, environment=rules) as process:
        where = f"ws://127.0.0.1:{process.port}/ws/room:7?id="
        async with connect(f"{where}a") as first, Publisher(redis.url) as publisher:
            for text in ("1", "2", "3"):
                await publisher.broadcast_message("room:7", text)
                assert await first.recv() == text
            async with connect(f"{where}b&rewind=9") as second:
                assert [await second.recv() for _ in range(2)] == ["2", "3"]
