"""Positions that clients keep themselves: of a member alone, and not from before its begin."""

from typing import Any

import pytest

from cluster_pool import Connection, History, InvalidValueError
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend, Pool, connection_of
from tests.support import async_test, eventually

ROOM = "room:7"
ROOMS = {"room:*": History()}
SECRETS = pytest.mark.parametrize("secret", [None, "not known to strangers"])


async def forget(backend: Backend, pool: Pool) -> None:
    """Remove what Redis knows of ids that were there."""
    async with backend.client() as client:
        keys = pool._setup.keys.positions(ROOM)
        former = keys.replace("positions", "former_positions")
        await client.delete(keys, former)


async def gone(*pools: Pool) -> None:
    """No connection is left."""
    for pool in pools:
        for connection in pool._parts.table.connections():
            await connection.close()
        await eventually(lambda pool=pool: not pool.statistics()["memberships"])


async def send(pool: Pool, *texts: str) -> list[str]:
    """Broadcast these; gives the positions."""
    places = []
    for text in texts:
        await pool.broadcast_message(ROOM, text)
        places.append(await pool.position(ROOM))
    return places


def said(websocket: FakeWebSocket) -> tuple[bool | None, list[Any]]:
    return connection_of(websocket).recovered, websocket.sent


@SECRETS
@async_test
async def test_a_client_goes_on_where_it_was(backend: Backend, secret: str | None) -> None:
    """At another node, of which Redis knows nothing any more; with the word alone from its begin;
    and with the word of that time again later."""
    async with backend.pools(history=ROOMS, secret=secret) as (one, two):
        await one.host(ROOM, "other")
        before = (await send(one, "before"))[0]
        alice = await one.host(ROOM, "alice")
        word = one.resume_word(connection_of(alice))
        assert word.startswith(f"{before}.")
        places = await send(one, "1", "2", "3")
        await gone(one)
        for since, rest in ((places[0], ["2", "3"]), (None, ["1", "2", "3"]), (places[2], [])):
            await forget(backend, two)
            back = await two.host(ROOM, "alice", since=since, resume=word)
            assert await two.send(ROOM, "alice", "live", confirm=True)
            assert await back.wait_sent(len(rest) + 1)
            assert said(back) == (True, [*rest, "live"])
            assert two.resume_word(connection_of(back)) == word
            await gone(two)


@SECRETS
@async_test
async def test_word_of_another_is_of_no_use(backend: Backend, secret: str | None) -> None:
    """The word of another namespace, id or user, none at all, and a position from before its begin:
    nothing old comes, and the connection says that something is lost. So it is where nothing is
    recorded."""
    async with backend.pools(history=ROOMS, secret=secret) as (one, two):
        other = await one.host(ROOM, "other", user="7")
        strange = await one.host("room:8", "alice", user="42")
        before = (await send(one, "secret"))[0]
        alice = await one.host(ROOM, "alice", user="42")
        word = one.resume_word(connection_of(alice))
        await send(one, "1")
        words = [one.resume_word(connection_of(each)) for each in (other, strange)]
        await gone(one)
        tries: list[tuple[str | None, str, str]] = [
            (None, each, "42") for each in (*words, "x.1.y")
        ]
        tries += [
            (before, word, "43"),
            (f"{before.split('.')[0]}.0", word, "42"),
            ("1.1", word, "42"),
        ]
        for since, each, user in tries:
            await forget(backend, two)
            back = await two.host(ROOM, "alice", user=user, since=since, resume=each)
            assert await two.send(ROOM, "alice", "live", confirm=True)
            await back.wait_sent()
            assert said(back) == (False, ["live"])
            await gone(two)
        with pytest.raises(InvalidValueError):
            await two.host(ROOM, "alice", since=before, resume=5)
        plain = await two.host("elsewhere", "alice", since=before, resume=word)
        assert connection_of(plain).recovered is None or not plain.sent
        assert two.resume_word(connection_of(plain)) == ""


@async_test
async def test_a_bad_word_takes_nothing_from_what_redis_knows(backend: Backend) -> None:
    async with backend.pools(history=ROOMS) as (one, two):
        await one.host(ROOM, "alice")
        await one.host(ROOM, "bob")
        await gone(one)
        await two.host(ROOM, "bob")
        await send(two, "missed")
        back = await two.host(ROOM, "alice", resume="1.1.unknown")
        await back.wait_sent()
        assert said(back) == (True, ["missed"])


@async_test
async def test_a_joined_namespace_has_a_word_of_its_own(backend: Backend) -> None:
    """A join takes it, and the position."""
    async with backend.pools(history=ROOMS) as (one, two):
        alice = await one.host("home", "alice")
        connection = connection_of(alice)
        assert await connection.join(ROOM) is None
        word = one.resume_word(connection, ROOM)
        assert word
        assert one.resume_word(connection) == ""
        places = await send(one, "1", "2")
        await gone(one)
        await forget(backend, two)
        back = Connection("alice", "home", websocket := FakeWebSocket())
        await two.new_connection(back)
        assert await back.join(ROOM, since=places[0], resume=word) is True
        assert await websocket.wait_sent() == ["2"]
        await back.leave(ROOM)
        await forget(backend, two)
        assert await back.join(ROOM, since=places[0], resume="1.1.unknown") is False
        assert two.resume_word(back, ROOM).startswith(f"{places[1]}.")
