"""Requests of clients of ``cluster-pool.v1``, and their answers: real nodes."""

import asyncio
import contextlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cluster_pool import Auth, Identity, Jwt, Limits, Publisher, Request
from cluster_pool.cluster import expiries
from tests.auth.signing import SECRET, token
from tests.redis_clusters import namespaces_of
from tests.server.framing import OK, V1, Framed, framed, node, url
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.redis_cluster import RedisCluster

pytestmark = pytest.mark.real

AUTH = Auth(authenticate=Jwt(secret=SECRET))


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    """One for all tests of this file."""
    with RedisServer("valkey") as server:
        yield server


def bearer(**claims: Any) -> str:
    """The query with a token."""
    return f"&token={token(**claims)}"


# -- what is permitted ---------------------------------------------------------------------


@async_test
async def test_publishing_needs_a_rule_and_membership(redis: RedisServer) -> None:
    rules = ("room:*=publish",)
    async with (
        node(redis, namespace_rules=rules) as (_, server),
        framed(server, "one", "home") as client,
    ):
        assert await client.error(publish="room:7", m="x") == "not_allowed"
        assert await client.ask(join="room:7") == OK
        assert await client.ask(publish="room:7", m="x") == OK
        assert await client.error(publish="home", m="x") == "not_allowed"
        assert await client.error(info=1, ns="room:7") == "not_allowed"
        assert await client.error(join="room:8", info=1) == "not_allowed"
        assert await client.ask(leave="room:7") == OK
        assert await client.error(publish="room:7", m="x") == "not_allowed"


@async_test
async def test_without_rules_nothing_is_published_and_no_inbound_message_either(
    redis: RedisServer,
) -> None:
    """A frame of the protocol is none of the raw messages that go to the inbound channel."""
    async with node(redis, namespace_rules=()) as (pool, server), framed(server, "one") as client:
        with redis.sync_client() as plain, plain.pubsub() as heard:
            heard.subscribe("cluster_pool:{room}:inbound")
            assert heard.get_message(timeout=10)
            assert await client.error(publish="room", m="x") == "not_allowed"
            assert await client.ask(join="other") == OK
            assert await pool.publish_inbound(pool.get_connection("room", "one"), "seen")  # type: ignore[arg-type]
            message = heard.get_message(timeout=10)
            assert message is not None
            assert b'"seen"' in message["data"]


@async_test
async def test_a_token_and_the_rules_say_what_a_client_may_join(redis: RedisServer) -> None:
    rules = ("lobby=join,publish", "room:*=publish,info")
    async with node(redis, auth=AUTH, namespace_rules=rules) as (_, server):
        own: Any = f"cluster-pool.token.{token(namespaces=['room:*'], sub='42')}"
        async with framed(server, "tab", "room:1", subprotocols=[own, V1]) as client:
            assert client.welcome.pop("expires") > time.time()
            assert client.welcome == {"id": "tab", "ns": "room:1", "user": "42"}
            assert await client.ask(join="room:2") == OK
            assert await client.ask(join="lobby") == OK
            assert await client.error(join="secret") == "not_allowed"
            await client.socket.send('{"publish": "lobby", "m": "hi"}')
            assert (await client.read())["from"] == {"id": "tab", "user": "42"}
        with pytest.raises(InvalidStatus):
            async with connect(url(server, "tab", "room:1"), subprotocols=[V1]):
                pass


@async_test
async def test_ids_of_other_users_are_not_taken_over_by_a_join(redis: RedisServer) -> None:
    """Nor do guests, who are no one user; the same user's newer tab takes it over."""
    rules = ("*=join",)
    async with (
        node(redis, auth=AUTH, namespace_rules=rules) as (pool, server),
        framed(server, "tab", "a", bearer(sub="42")) as alice,
        framed(server, "tab", "b", bearer(sub="43")) as bob,
        framed(server, "tab", "c", bearer(sub="42")) as again,
        framed(server, "tab", "d", bearer(sub=None)) as guest,
        framed(server, "tab", "e", bearer(sub=None)) as other,
    ):
        assert await alice.ask(join="room") == OK
        assert await bob.error(join="room") == "taken"
        assert await guest.error(join="room") == "taken"
        assert await again.ask(join="room") == OK
        assert await alice.read() == {"left": "room", "cause": "taken over"}
        assert await guest.ask(join="den") == OK
        assert await other.error(join="den") == "taken"
        assert await pool.count("room") == 1


@async_test
async def test_info_is_told_and_bounded(redis: RedisServer) -> None:
    async with node(redis) as (pool, server), framed(server, "one") as client:
        assert await client.ask(info={"name": "Al"}) == OK
        assert [member.info async for member in pool.members("room")] == [{"name": "Al"}]
        assert await client.ask(join="room:7", info=[1]) == OK
        assert [member.info async for member in pool.members("room:7")] == [[1]]
        assert await client.error(info="x" * 1023) == "too_large"
        assert await client.error(info=1, ns="room:8") == "not_allowed"
        assert await client.ask(info=None, ns="room:7") == OK
        assert [member.info async for member in pool.members("room:7")] == [None]


@async_test
async def test_the_info_of_an_identity_is_told_from_the_beginning(redis: RedisServer) -> None:
    def known(request: Request) -> Identity:
        return Identity(user="42", namespaces=["*"], info={"name": "Al"})

    async with (
        node(redis, auth=Auth(authenticate=known)) as (pool, server),
        framed(server, "one"),
    ):
        assert [member.info async for member in pool.members("room")] == [{"name": "Al"}]


@async_test
async def test_a_client_joins_up_to_the_limit(redis: RedisServer) -> None:
    limits = Limits(connection_namespaces=3)
    async with node(redis, limits=limits) as (_, server), framed(server, "one") as client:
        assert await client.ask(join="a") == OK
        assert await client.ask(join="b") == OK
        assert await client.ask(join="b") == OK
        assert await client.error(join="c") == "limit"
        assert await client.ask(leave="a") == OK
        assert await client.ask(join="c") == OK


# -- how much ------------------------------------------------------------------------------


@async_test
async def test_joining_is_bounded_in_rate_beyond_what_a_client_may_have(
    redis: RedisServer,
) -> None:
    """Each join and leave is an event for all who watch, with another info each time."""
    limits = Limits(connection_namespaces=10)
    async with (
        node(redis, limits=limits, published_per_second=2) as (_, server),
        framed(server, "one") as client,
    ):
        before = time.monotonic()
        answers = []
        for number in range(40):
            answers.append(await client.ask(join=f"room:{number}", info=number))
            assert await client.ask(leave=f"room:{number}") == OK
        allowed = 10 + 2 * (time.monotonic() - before) + 1
        assert 10 <= answers.count(OK) <= allowed
        assert all(one in (OK, {"error": "rate"}) for one in answers)
        assert await client.ask(publish="room", m="x") == OK


@async_test
async def test_publishing_is_bounded_in_rate_and_does_not_hinder_joining(
    redis: RedisServer,
) -> None:
    async with (
        node(redis, published_per_second=5) as (_, server),
        framed(server, "one") as client,
        framed(server, "two") as other,
    ):
        before = time.monotonic()
        answers = [await client.ask(publish="room", m="x") for _ in range(20)]
        allowed = 5 + 5 * (time.monotonic() - before) + 1
        assert 5 <= answers.count(OK) <= allowed
        assert all(one in (OK, {"error": "rate"}) for one in answers)
        for number in range(20):
            assert await client.ask(join=f"room:{number}") == OK
        assert await other.ask(publish="room", m="mine") == OK
        await eventually(lambda: _asks_ok(client))


async def _asks_ok(client: Framed) -> bool:
    await asyncio.sleep(0.1)
    return await client.ask(publish="room", m="again") == OK


# -- tokens --------------------------------------------------------------------------------


@async_test
async def test_a_renewed_token_goes_on_and_another_one_does_not(redis: RedisServer) -> None:
    rules = ("room*=join,publish",)
    async with (
        node(redis, auth=AUTH, namespace_rules=rules) as (pool, server),
        framed(server, "one", "room", bearer(exp=int(time.time()) + 30)) as client,
    ):
        connection = pool.get_connection("room", "one")
        assert connection is not None
        expires = int(time.time()) + 3600
        assert await client.error(renew="x") == "not_allowed"
        assert await client.error(renew=token(sub="43")) == "not_allowed"
        assert await client.error(renew="\n") == "invalid"
        renewed = await client.ask(renew=token(exp=expires))
        assert renewed == {"ok": True, "expires": connection.expires}
        assert connection.expires is not None
        assert connection.expires >= expires


@async_test
async def test_a_renewal_is_judged_by_the_path_and_the_address_of_the_client(
    redis: RedisServer,
) -> None:
    seen = []

    def known(request: Request) -> Identity:
        seen.append((request.path, request.client, request.query_string))
        return Identity(namespaces=["*"])

    async with (
        node(redis, auth=Auth(authenticate=known)) as (_, server),
        framed(server, "one") as client,
    ):
        assert await client.ask(renew="x") == OK
    assert seen == [("/ws/room", "127.0.0.1", "id=one"), ("/ws/room", "127.0.0.1", "")]


@async_test
async def test_after_expiry_a_client_neither_publishes_nor_joins(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its close may come later, since those of many are spread."""
    monkeypatch.setattr(expiries, "PERIOD", 10.0)
    ends = time.time() + 2.0

    def soon(request: Request) -> Identity:
        return Identity(user=request.query["id"], namespaces=["room*"], expires=ends)

    async with (
        node(redis, auth=Auth(authenticate=soon)) as (_, server),
        framed(server, "one") as client,
    ):
        assert client.welcome["expires"] == ends
        assert await client.ask(publish="room", m="x") == OK
        await asyncio.sleep(max(0.0, ends - time.time()))
        await client.socket.send('{"publish": "room", "m": "late", "ref": "p"}')
        await client.socket.send('{"join": "room:2", "ref": "j"}')
        await client.socket.send('{"info": 1, "ref": "i"}')
        frames = []
        while "ref" not in (frame := await client.read()) or frame["ref"] != "i":
            frames.append(frame)
        frames.append(frame)
        assert [one["error"] for one in frames if "error" in one] == ["expired"] * 3
        assert (await client.closed())[0] == 4401


# -- faults --------------------------------------------------------------------------------


@async_test
async def test_while_redis_is_away_requests_are_answered_and_no_client_is_lost(
    redis: RedisServer,
) -> None:
    """One request waits for its time-out, those behind it are answered at once."""
    with RedisServer("valkey") as own:
        async with node(own) as (_, server), framed(server, "one") as client:
            assert await client.ask(join="room:2") == OK
            own.kill()
            assert await client.error(publish="room", m="x") == "unavailable"
            assert await client.error(join="room:3") == "unavailable"
            assert await client.error(info=1) == "unavailable"
            assert await client.ask(leave="room:2") == OK  # it is done when Redis is back
            own.start()

            async def works() -> bool:
                await asyncio.sleep(0.1)
                return await client.ask(publish="room", m="again") == OK

            await eventually(works, 30)
            assert await client.ask(join="room:3") == OK


@async_test
async def test_requests_that_wait_for_redis_are_counted_by_their_memory() -> None:
    """A text with one wide character takes four bytes for each."""
    with RedisServer("valkey") as redis:
        async with node(redis) as (pool, server), framed(server, "one") as client:
            redis.freeze()
            try:
                text = json.dumps(
                    {"publish": "room", "m": "x" * 500_000 + "😀"}, ensure_ascii=False
                )
                await client.socket.send(text)
                await eventually(lambda: pool.inbound.unread >= 2_000_000, 10)
            finally:
                redis.thaw()
            await eventually(lambda: pool.inbound.unread == 0, 30)


@async_test
async def test_while_the_node_drains_members_publish_and_nobody_joins(redis: RedisServer) -> None:
    async with node(redis) as (pool, server), contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(framed(server, str(n))) for n in range(5)]
        draining = asyncio.create_task(pool.drain_connections(0.1, grace=120))
        await eventually(lambda: not pool.ready)
        await pool.pause_drain()
        left = next(one for one in clients if pool.get_connection("room", one.welcome["id"]))
        assert await left.error(join="room:2") == "draining"
        assert await left.ask(publish="room", m="x") == OK
        await pool.cancel_drain()
        await asyncio.gather(draining, return_exceptions=True)


@async_test
async def test_published_messages_are_sealed_in_a_cluster_with_a_secret(redis: RedisServer) -> None:
    secret = b"a secret of sixteen bytes or more"
    async with (
        node(redis, "a", secret=secret) as (_, first),
        node(redis, "b", secret=secret) as (pool, second),
        framed(first, "writer") as writer,
        framed(second, "reader") as reader,
    ):
        await writer.socket.send('{"publish": "room", "m": "sealed"}')
        frame = await reader.read()
        assert (frame["m"], frame["from"]) == ("sealed", {"id": "writer"})
        assert pool.counters.dropped_forged == 0


@async_test
async def test_a_newcomer_does_not_get_what_was_published_before_it(redis: RedisServer) -> None:
    """In a cluster with a secret, a message that was sealed before the claim is kept from it."""
    secret = b"a secret of sixteen bytes or more"
    async with (
        node(redis, "a", secret=secret) as (_, server),
        framed(server, "old") as old,
    ):
        for number in range(15):
            await old.socket.send(f'{{"publish": "room", "m": "{number}", "ref": {number}}}')
            async with framed(server, f"new-{number}") as new:
                await new.socket.send('{"x": 1, "ref": "end"}')
                frames = []
                while (frame := await new.read()).get("ref") != "end":
                    frames.append(frame["m"])
                assert frames in ([], [str(number)])


@async_test
async def test_each_server_of_a_redis_cluster_is_tried_by_itself() -> None:
    """While one is away, its namespaces are unavailable, and all others go on."""
    with RedisCluster() as redis:
        names = namespaces_of(redis)
        async with (
            node(redis, "a", namespace_rules=("*=publish",)) as (_, first),
            node(redis, "b", namespace_rules=("*=publish",)) as (_, second),
        ):
            everywhere = [namespace for one in names.values() for namespace in one]
            async with (
                framed(first, "one", everywhere[0]) as client,
                framed(second, "two", everywhere[0]) as other,
            ):
                for namespace in everywhere:
                    for one in (client, other):
                        assert await one.ask(join=namespace) == OK
                for namespace in everywhere:
                    await client.socket.send(f'{{"publish": "{namespace}", "m": "x"}}')
                    frame = await other.read()
                    assert (frame["ns"], frame["from"]) == (namespace, {"id": "one"})
                    assert frame["p"]
                down = next(port for port in names if names[port][0] != everywhere[0])
                next(one for one in redis.primaries if one.port == down).server.freeze()
                assert await client.error(publish=names[down][0], m="x") == "unavailable"
                assert await client.ask(publish=everywhere[0], m="x") == OK
                assert await client.error(publish=names[down][0], m="x") == "unavailable"
                assert await client.ask(publish=everywhere[0], m="x") == OK


@async_test
async def test_a_publisher_makes_a_client_join(redis: RedisServer) -> None:
    async with (
        node(redis) as (_, server),
        framed(server, "one") as client,
        Publisher(redis.url) as publisher,
    ):
        assert await publisher.join("room", "one", "room:9")
        await publisher.broadcast_message("room:9", "hi")
        frame = await client.read()
        assert (frame["ns"], frame["m"]) == ("room:9", "hi")
        assert await client.ask(publish="room:9", m="x") == OK


@async_test
async def test_a_message_names_the_id_of_its_client_there(redis: RedisServer) -> None:
    """Another client may have the id of its home in that namespace."""
    async with (
        node(redis) as (pool, server),
        framed(server, "bob") as client,
        framed(server, "bob", "room:9") as bob,
    ):
        assert await pool.join("room", "bob", "room:9", as_id="guest")
        assert await client.ask(publish="room:9", m="I am bob") == OK
        assert (await bob.read())["from"] == {"id": "guest"}
