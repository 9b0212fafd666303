"""Newcomers get the last messages of their namespace ahead of everything live, each once."""

import asyncio
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError, Connection, History, InvalidValueError, Limits
from cluster_pool.cluster.tails import Tail
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend, Pool, connection_of
from tests.support import async_test, eventually

ROOM = "room:7"
ROOMS = {"room:*": History()}


async def stay(pool: Pool, websocket: FakeWebSocket, until: asyncio.Event, **options: Any) -> None:
    """A client that stays until an event."""
    async with pool.accept(websocket, namespace=ROOM, **options):
        await until.wait()


@async_test
async def test_none_is_missing_and_none_comes_twice(backend: Backend) -> None:
    """Forty newcomers on two nodes, while two publishers send as fast as they can."""
    over, gone = asyncio.Event(), asyncio.Event()
    async with backend.pools(2, history=ROOMS) as pools, backend.publisher() as publisher:
        await pools[0].host(ROOM, "first")
        counts = {"p": 0, "q": 0}

        async def publish(name: str, sender: Any) -> None:
            while not over.is_set():
                counts[name] += 1
                await sender.broadcast_message(ROOM, f"{name} {counts[name]}")

        sending = [
            asyncio.create_task(publish("p", publisher)),
            asyncio.create_task(publish("q", pools[1])),
        ]
        await eventually(lambda: counts["p"] > 30)
        sockets = [FakeWebSocket() for _ in range(40)]
        staying = []
        for number, websocket in enumerate(sockets):
            pool = pools[number % 2]
            staying.append(asyncio.create_task(stay(pool, websocket, gone, rewind=25)))
            await asyncio.sleep(0.01)
        await eventually(lambda: all(len(one.sent) >= 25 for one in sockets), 30)
        over.set()
        await asyncio.gather(*sending)
        last = {f"{name} {count}" for name, count in counts.items()}
        await eventually(lambda: all(last <= set(one.sent) for one in sockets), 30)
        for websocket in sockets:
            for name, count in counts.items():
                numbers = [int(one[2:]) for one in websocket.sent if one.startswith(name)]
                assert numbers == list(range(count - len(numbers) + 1, count + 1))
        await pools[0].broadcast_message(ROOM, "end")
        await eventually(lambda: all(one.sent[-1] == "end" for one in sockets))
        assert not pools[0]._parts.rewinds.meets(ROOM)
        gone.set()
        await asyncio.gather(*staying)


@async_test
async def test_nothing_is_kept_for_those_that_left_a_quiet_namespace(backend: Backend) -> None:
    """No live message has come since, to show that all earlier ones have passed."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        for name in (ROOM, "room:8"):
            await pool.host(name, "first")
            await pool.broadcast_message(name, "before")
            for _ in range(3):
                websocket = FakeWebSocket()
                async with pool.accept(websocket, namespace=name, rewind=3):
                    assert await websocket.wait_sent() == ["before"]
                    assert pool._parts.rewinds.meets(name)
            assert not pool._parts.rewinds.meets(name)


@async_test
async def test_a_newcomer_gets_only_what_it_may_read(backend: Backend) -> None:
    """Its id and its user may be excluded; messages to single members are not among them."""
    gone = asyncio.Event()
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "first")
        for number in range(5):
            await pool.broadcast_message(ROOM, str(number))
        await pool.send(ROOM, "first", "its own")
        await pool.broadcast_message(ROOM, "not alice", exclude=["alice"])
        await pool.broadcast_message(ROOM, "not 42", exclude_users=["42"])
        alice, bob, carol = [FakeWebSocket() for _ in range(3)]
        staying = [
            asyncio.create_task(stay(pool, alice, gone, id="alice", rewind=3)),
            asyncio.create_task(stay(pool, bob, gone, id="bob", user="42", rewind=3)),
            asyncio.create_task(stay(pool, carol, gone, id="carol")),
        ]
        assert await alice.wait_sent(3) == ["3", "4", "not 42"]
        assert await bob.wait_sent(3) == ["3", "4", "not alice"]
        await eventually(lambda: pool.get_connection(ROOM, "carol"))
        await pool.broadcast_message(ROOM, "live")
        assert await alice.wait_sent(4) == ["3", "4", "not 42", "live"]
        assert await carol.wait_sent(1) == ["live"]
        gone.set()
        await asyncio.gather(*staying)


@async_test
async def test_messages_that_clients_have_published_come_once(backend: Backend) -> None:
    """As all other broadcasts do, before the newcomer and behind it."""
    gone = asyncio.Event()
    async with backend.pools(1, history=ROOMS) as (pool,):
        first = (await pool.host(ROOM, "first")).connection
        await pool.publish_from(first, ROOM, "before")
        alice = FakeWebSocket()
        staying = asyncio.create_task(stay(pool, alice, gone, id="alice", rewind=3))
        await eventually(lambda: pool.get_connection(ROOM, "alice"))
        await pool.publish_from(first, ROOM, "live")
        assert await alice.wait_sent(2) == ["before", "live"]
        gone.set()
        await staying


@async_test
async def test_no_more_is_replayed_than_fits_into_an_outbox() -> None:
    """The newest; one message fits always."""
    gone = asyncio.Event()
    options: Any = {"history": ROOMS, "limits": Limits(outbox_bytes=1000)}
    async with Backend(None).pools(1, **options) as (pool,):
        await pool.host(ROOM, "first")
        for text in "abcd":
            await pool.broadcast_message(ROOM, text * 400)
        await pool.broadcast_message("room:8", "unread")
        alice = FakeWebSocket()
        staying = asyncio.create_task(stay(pool, alice, gone, rewind=3))
        assert await alice.wait_sent(2) == ["c" * 400, "d" * 400]
        await pool.broadcast_message(ROOM, "e" * 3000)
        bob = FakeWebSocket()
        other = asyncio.create_task(stay(pool, bob, gone, rewind=3))
        assert await bob.wait_sent(1) == ["e" * 3000]
        gone.set()
        await asyncio.gather(staying, other)


@async_test
async def test_a_namespace_without_a_history_gives_nothing() -> None:
    """The newcomer joins all the same; a number that is none is refused."""
    gone = asyncio.Event()
    async with Backend(None).pools(1) as (pool,):
        await pool.host(ROOM, "first")
        await pool.broadcast_message(ROOM, "before")
        alice = FakeWebSocket()
        staying = asyncio.create_task(stay(pool, alice, gone, id="alice", rewind=3))
        await eventually(lambda: pool.get_connection(ROOM, "alice"))
        await pool.broadcast_message(ROOM, "live")
        assert await alice.wait_sent(1) == ["live"]
        assert not pool._parts.rewinds.meets(ROOM)
        gone.set()
        await staying
        with pytest.raises(InvalidValueError):
            pool.accept(FakeWebSocket(), namespace=ROOM, rewind=0)


@async_test
async def test_a_history_that_ends_meanwhile_takes_nothing_live_with_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages to the newcomer itself have no position, and so none that it could have had."""
    gone = asyncio.Event()
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "first")
        histories = pool._parts.backplane.histories
        read, keys = histories._read, pool._parts.setup.keys

        async def late(*arguments: Any) -> Any:
            with backend.sync_client() as client:
                client.delete(keys.numbers(keys.channel(ROOM)))
            await pool.send(ROOM, "alice", "hers", confirm=True)
            await backend.publish(keys.channel(ROOM), "plain")
            await asyncio.sleep(0.2)
            return await read(*arguments)

        monkeypatch.setattr(histories, "_read", late)
        alice = FakeWebSocket()
        staying = asyncio.create_task(stay(pool, alice, gone, id="alice", rewind=3))
        assert await alice.wait_sent(2) == ["hers", "plain"]
        gone.set()
        await staying


@async_test
async def test_a_history_that_cannot_be_read_refuses_the_newcomer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its claim is released; it may try again."""
    async with Backend(None).pools(1, history=ROOMS) as (pool,):
        histories = pool._parts.backplane.histories

        async def refused(*_: Any) -> Any:
            raise BackplaneUnavailableError("no")

        monkeypatch.setattr(histories, "_read", refused)
        with pytest.raises(BackplaneUnavailableError):
            await stay(pool, FakeWebSocket(), asyncio.Event(), id="alice", rewind=3)
        assert await pool.count(ROOM) == 0
        assert not pool._parts.rewinds.meets(ROOM)


@async_test
async def test_a_position_of_the_application_is_read_on_from_there(backend: Backend) -> None:
    """Also for an id that was never there; one that has left the history is told."""
    gone = asyncio.Event()
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "first")
        await pool.broadcast_message(ROOM, "0")
        since = await pool.position(ROOM)
        for number in range(1, 4):
            await pool.broadcast_message(ROOM, str(number))
        websocket = FakeWebSocket()
        staying = asyncio.create_task(stay(pool, websocket, gone, id="alice", since=since))
        assert await websocket.wait_sent(3) == ["1", "2", "3"]
        async with pool.accept(FakeWebSocket(), namespace=ROOM, since="1.1") as connection:
            assert connection.recovered is False
        async with pool.accept(FakeWebSocket(), namespace=ROOM, since="") as connection:
            assert connection.recovered is None
        for bad in (7, "7", "1.x", "1.1.1"):
            with pytest.raises(InvalidValueError, match="position"):
                pool.accept(FakeWebSocket(), namespace=ROOM, since=bad)  # type: ignore[arg-type]
        gone.set()
        await staying


@async_test
async def test_many_that_come_back_at_once_leave_turns_of_the_loop_to_others(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reading is made for all, and no two get their messages in one turn."""
    turns, taken, over = 0, list[int](), False
    after = Tail.after

    async def count() -> None:
        nonlocal turns
        while not over:
            turns += 1
            await asyncio.sleep(0)

    def counted(*arguments: Any) -> Any:
        taken.append(turns)
        return after(*arguments)

    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "first")
        former = [await pool.host(ROOM, str(number)) for number in range(30)]
        await asyncio.gather(*[connection_of(one).close() for one in former])
        await eventually(lambda: pool.statistics()["memberships"] == 1)
        await pool.broadcast_message(ROOM, "missed")
        monkeypatch.setattr(Tail, "after", counted)
        counting = asyncio.create_task(count())
        latter = await asyncio.gather(*[pool.host(ROOM, str(number)) for number in range(30)])
        over = True
        await counting
        for websocket in latter:
            assert await websocket.wait_sent() == ["missed"]
        assert len(taken) == len(set(taken)) == 30


@async_test
async def test_nothing_live_comes_when_the_past_cannot_be_read(backend: Backend) -> None:
    """An open connection is refused then, and has got nothing that would come again later."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        former = Connection("alice", ROOM, FakeWebSocket())
        await pool.new_connection(former)
        await former.close()
        await eventually(lambda: not pool.statistics()["memberships"])
        await pool.broadcast_message(ROOM, "missed")
        rewinds: Any = pool._parts.rewinds
        read = rewinds._tails.read

        async def in_vain(*arguments: Any) -> Any:
            await pool.broadcast_message(ROOM, "live")
            await eventually(lambda: connection._pending)
            raise BackplaneUnavailableError("not in time")

        rewinds._tails.read = in_vain
        connection = Connection("alice", ROOM, websocket := FakeWebSocket())
        with pytest.raises(BackplaneUnavailableError):
            await pool.new_connection(connection)
        rewinds._tails.read = read
        assert websocket.sent == []
        again = Connection("alice", ROOM, websocket := FakeWebSocket())
        await pool.new_connection(again)
        assert again.recovered is True
        assert await websocket.wait_sent(2) == ["missed", "live"]
