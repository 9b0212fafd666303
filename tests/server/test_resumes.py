"""Clients of ``serve`` that keep their position themselves: in the URL, and in a join."""

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from cluster_pool import ClusterPool, History
from tests.server.framing import Framed, framed, node, url
from tests.servers import RedisServer
from tests.support import async_test, eventually

pytestmark = pytest.mark.real

ROOM = "room:7"
ROOMS = {"room:*": History()}


async def forget(redis: RedisServer, pool: ClusterPool, namespace: str = ROOM) -> None:
    """Remove what Redis knows of ids that were there."""
    keys = pool._parts.setup.keys.positions(namespace)
    async with redis.client() as client:
        for kind in ("positions", "former_positions"):
            await client.delete(keys.replace("positions", kind))


async def messages(client: Framed, count: int) -> list[dict[str, Any]]:
    return [await client.read() for _ in range(count)]


async def ended(*pools: ClusterPool) -> None:
    await eventually(lambda: not any(pool.statistics()["memberships"] for pool in pools), 20)


@async_test
async def test_a_client_presents_its_position_in_the_url(own_server: RedisServer) -> None:
    """At another node, when Redis has forgotten it: it gets what it has not, and its word again."""
    async with (
        node(own_server, "a", history=ROOMS) as (one, server),
        node(own_server, "b", history=ROOMS) as (two, other),
    ):
        async with framed(server, "alice", ROOM) as alice:
            word = alice.welcome["resume"]
            assert "recovered" not in alice.welcome
            await asyncio.gather(*[one.broadcast_message(ROOM, str(at)) for at in range(4)])
            got = await messages(alice, 4)
        await ended(one, two)
        await forget(own_server, one)
        query = f"&since={got[1]['p']}&resume={quote(word)}"
        async with framed(other, "alice", ROOM, query) as alice:
            assert alice.welcome == {"id": "alice", "ns": ROOM, "recovered": True, "resume": word}
            assert await messages(alice, 2) == got[2:]
        await ended(one, two)
        await forget(own_server, one)
        async with framed(server, "bob", ROOM, query) as bob:
            assert bob.welcome["recovered"] is False
            assert bob.welcome["resume"] != word
            await one.broadcast_message(ROOM, "live")
            assert (await bob.read())["m"] == "live"


@async_test
async def test_a_client_presents_its_position_in_a_join(own_server: RedisServer) -> None:
    """The messages that it has missed come ahead of the answer, which has its word."""
    async with node(own_server, "a", history=ROOMS) as (pool, server):
        async with framed(server, "alice") as alice:
            assert "resume" not in alice.welcome
            answer = await alice.ask(join=ROOM)
            word = answer["resume"]
            assert answer == {"ok": True, "resume": word}
            for text in ("1", "2", "3"):
                await pool.broadcast_message(ROOM, text)
            got = await messages(alice, 3)
            assert await alice.ask(join=ROOM) == answer
        await ended(pool)
        await forget(own_server, pool)
        async with framed(server, "alice") as alice:
            assert await alice.error(join=ROOM, since="x", resume=word) == "invalid"
            assert await alice.error(join=ROOM, since=got[0]["p"]) == "invalid"
            assert await alice.error(join=ROOM, resume=[]) == "invalid"
            await alice.socket.send(
                f'{{"join": "{ROOM}", "since": "{got[0]["p"]}", "resume": "{word}"}}'
            )
            assert await messages(alice, 2) == got[1:]
        await ended(pool)
        await forget(own_server, pool)
        async with framed(server, "bob") as bob:
            assert (await bob.ask(join=ROOM, resume=word))["recovered"] is False


@async_test
async def test_position_in_redis_counts_where_the_history_does_not_reach(
    own_server: RedisServer,
) -> None:
    """The stack of the client has shown what it has. Else the client knows that better."""
    async with node(own_server, history={"room:*": History(messages=50)}) as (pool, server):
        async with framed(server, "alice", ROOM) as alice:
            word = alice.welcome["resume"]
            for at in range(200):
                await pool.broadcast_message(ROOM, str(at))
            got = await messages(alice, 200)
            await pool.close(ROOM, "alice", 1012)
            await alice.closed()  # it has answered: so it has all
        await ended(pool)
        for last, missed in ((got[10], []), (got[197], got[198:])):
            query = f"&since={last['p']}&resume={word}"
            async with framed(server, "alice", ROOM, query) as alice:
                assert alice.welcome["recovered"] is True
                assert await messages(alice, len(missed)) == missed
                await pool.send(ROOM, "alice", "live")
                assert (await alice.read())["m"] == "live"
            await ended(pool)


@async_test
async def test_an_offer_that_cannot_be_read_is_refused(own_server: RedisServer) -> None:
    """A position without a word, too: with 400."""
    async with node(own_server, history=ROOMS) as (_, server):
        for query in ("&since=1.2", "&since=x&resume=w", "&resume=a&resume=b", "&since=1&since=2"):
            with pytest.raises(InvalidStatus) as refused:
                async with connect(url(server, "alice", ROOM, query)):
                    pass
            assert refused.value.response.status_code == 400


@pytest.mark.parametrize("own_server", ["valkey"], indirect=True)
@async_test
async def test_plain_clients_get_no_word_and_may_use_one(own_server: RedisServer) -> None:
    """One that has it from elsewhere gets bare messages."""
    async with node(own_server, history=ROOMS) as (pool, server):
        async with connect(url(server, "alice", ROOM)) as plain:
            await eventually(lambda: pool.get_connection(ROOM, "alice"))
            connection = pool.get_connection(ROOM, "alice")
            assert connection is not None
            word = pool.resume_word(connection)
            await pool.broadcast_message(ROOM, "1")
            assert await plain.recv() == "1"
        await ended(pool)
        await forget(own_server, pool)
        async with connect(url(server, "alice", ROOM, f"&resume={word}")) as plain:
            assert await plain.recv() == "1"
