"""The ends of histories, read for all who come back at the same time."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError, History
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.cluster import dispatcher
from cluster_pool.cluster.tails import Tail, Tails
from cluster_pool.core.history import (
    Position,
)
from cluster_pool.core.past import Reader
from tests.clusters import Backend, Pool
from tests.support import async_test

ROOM = "room"
ROOMS = {"room*": History(messages=1000)}


async def tail_of(pool: Pool, start: int = 0) -> Tail:
    parts = pool._parts
    tails = Tails(parts.backplane, parts.histories)
    return await tails.read(ROOM, await place(pool, start), deadline_in(20))


async def place(pool: Pool, number: int) -> Position:
    here = await pool._parts.backplane.histories.position(ROOM, deadline_in(20))
    return here._replace(number=number)


def texts(tail: Tail, since: Position, id: str = "x", user: str | None = None) -> Any:
    """The messages for a reader; None if one of them may be missing."""
    messages = tail.after(since, Reader(id, user))
    return None if messages is None else [one.payload.decode() for one in messages]


@async_test
async def test_each_reader_gets_what_it_has_missed(backend: Backend) -> None:
    """In order, without what excludes it; with the positions of the messages."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        first = (await pool.host(ROOM, "first")).connection
        for number in range(4):
            await pool.broadcast_message(ROOM, str(number))
        await pool.broadcast_message(ROOM, "not alice", exclude=["alice"])
        await pool.broadcast_message(ROOM, "not 42", exclude_users=["42"])
        await pool.publish_from(first, ROOM, "published")
        await pool.close_all(ROOM)
        tail = await tail_of(pool)
        assert (tail.begins, tail.floor) == (0, await place(pool, tail.floor.number))
        since = await place(pool, 2)
        assert texts(tail, since) == ["2", "3", "not alice", "not 42", "published"]
        assert texts(tail, since, "alice") == ["2", "3", "not 42", "published"]
        assert texts(tail, since, "bob", "42") == ["2", "3", "not alice", "published"]
        assert texts(tail, tail.floor) == []
        messages = tail.after(since, Reader("x"))
        assert messages is not None
        assert messages[0].source == (ROOM, since.epoch, 3)


@async_test
async def test_a_position_that_the_history_does_not_reach_gives_nothing(backend: Backend) -> None:
    """It is of another epoch, of the future, or behind something that has left it."""
    async with backend.pools(1, history={ROOM: History(messages=20)}) as (pool,):
        await pool.host(ROOM, "first")
        for number in range(60):
            await pool.broadcast_message(ROOM, str(number))
        tail = await tail_of(pool)
        assert 30 <= tail.begins <= 40
        assert texts(tail, await place(pool, tail.begins - 1)) is None
        assert texts(tail, await place(pool, tail.begins)) == [
            str(number) for number in range(tail.begins, 60)
        ]
        assert texts(tail, await place(pool, 61)) is None
        assert texts(tail, Position("1", tail.begins)) is None


@pytest.mark.parametrize("number", [1, 5, 10])
@async_test
async def test_a_hole_in_the_history_is_found(backend: Backend, number: int) -> None:
    """Whichever entry was deleted by hand: who needs it gets nothing."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "first")
        for text in range(1, 11):
            await pool.broadcast_message(ROOM, str(text))
        key = pool._parts.setup.keys.history(ROOM)
        with backend.sync_client() as client:
            assert client.xdel(key, f"{number}-0") == 1
        tail = await tail_of(pool)
        assert tail.begins == number
        assert texts(tail, await place(pool, number - 1)) is None
        assert texts(tail, await place(pool, number)) == [
            str(text) for text in range(number + 1, 11)
        ]


@async_test
async def test_a_history_that_is_gone_gives_nothing(backend: Backend) -> None:
    """Only to those that have all of it."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "first")
        for text in range(3):
            await pool.broadcast_message(ROOM, str(text))
        with backend.sync_client() as client:
            client.delete(pool._parts.setup.keys.history(ROOM))
        tail = await tail_of(pool)
        assert texts(tail, await place(pool, 2)) is None
        assert texts(tail, await place(pool, 3)) == []


@async_test
async def test_a_namespace_without_a_history_has_no_past(backend: Backend) -> None:
    """No position in it counts."""
    async with backend.pools(1) as (pool,):
        await pool.host(ROOM, "first")
        await pool.broadcast_message(ROOM, "lost")
        tail = await tail_of(pool)
        assert texts(tail, Position("1", 0)) is None


@async_test
async def test_those_who_come_together_share_a_reading(backend: Backend) -> None:
    """One under way may have begun too early, so its successor is shared, and reads from the
    earliest of the positions."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "first")
        for text in range(200):
            await pool.broadcast_message(ROOM, str(text))
        parts = pool._parts
        histories: Any = parts.backplane.histories
        read, starts = histories.after, []

        async def counted(namespace: str, start: Position, deadline: float) -> AsyncIterator[Any]:
            starts.append(start.number)
            async for page in read(namespace, start, deadline):
                yield page

        histories.after = counted
        tails = Tails(parts.backplane, parts.histories)
        first = asyncio.create_task(tails.read(ROOM, await place(pool, 190), deadline_in(20)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        places = [await place(pool, number) for number in range(100, 200)]
        late = [asyncio.create_task(tails.read(ROOM, one, deadline_in(20))) for one in places]
        found = await asyncio.gather(first, *late)
        assert len(starts) <= 3
        assert len(set(map(id, found))) == len(starts)
        for one, tail in zip(places, found[1:], strict=True):
            assert texts(tail, one) == [str(number) for number in range(one.number, 200)]


@async_test
async def test_a_reader_that_gives_up_harms_no_other() -> None:
    """The reading goes on for those that share it; one that fails, fails for all of them."""
    async with Backend(None).pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "first")
        await pool.broadcast_message(ROOM, "text")
        parts = pool._parts
        histories: Any = parts.backplane.histories
        tails = Tails(parts.backplane, parts.histories)
        since = await place(pool, 0)
        given_up, other = [
            asyncio.create_task(tails.read(ROOM, since, deadline_in(20))) for _ in range(2)
        ]
        await asyncio.sleep(0)
        given_up.cancel()
        assert texts(await other, since) == ["text"]

        async def refused(*_: Any) -> Any:
            raise BackplaneUnavailableError("no")

        read, histories._read = histories._read, refused
        for result in await asyncio.gather(
            *[tails.read(ROOM, since, deadline_in(20)) for _ in range(2)], return_exceptions=True
        ):
            assert isinstance(result, BackplaneUnavailableError)
        histories._read = read
        assert texts(await tails.read(ROOM, since, deadline_in(20)), since) == ["text"]


@async_test
async def test_a_long_history_leaves_turns_of_the_loop_to_others(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the entries of one page, as soon as its turn is over."""
    monkeypatch.setattr(dispatcher, "TURN", 0)
    turns, read = 0, set[int]()

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "first")
        for number in range(20):
            await pool.broadcast_message(ROOM, str(number))
        histories = pool._parts.histories
        opened = histories.opened

        def noted(*arguments: Any) -> Any:
            read.add(turns)
            return opened(*arguments)

        monkeypatch.setattr(histories, "opened", noted)
        counting = asyncio.create_task(count())
        tail = await tail_of(pool)
        counting.cancel()
        assert len(texts(tail, await place(pool, 0))) == len(read) == 20
