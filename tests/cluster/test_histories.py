"""Histories: recorded by the publishing script, read by pools and publishers; on every backend."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster_pool import ClusterPool, History, HistoryMessage, Publisher
from cluster_pool.core.envelope import broadcast
from cluster_pool.core.keys import Keys
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool
from tests.support import async_test, eventually

ROOMS = {"room:*": History()}
ROOM = "room:7"
MIB = 1024 * 1024
SECRET = "sixteen bytes or more"


def texts(messages: list[HistoryMessage]) -> list[str | bytes]:
    """The messages alone."""
    return [one.message for one in messages]


def numbers_of(backend: Backend, namespace: str = ROOM) -> str:
    """The hash of numbers beside a namespace's channel."""
    keys = Keys(backend.prefix)
    return keys.numbers(keys.channel(namespace))


def stream_of(backend: Backend, namespace: str = ROOM) -> str:
    """The stream of a namespace's history."""
    return Keys(backend.prefix).history(namespace)


@contextlib.asynccontextmanager
async def node(
    backend: Backend, node_id: str, history: dict[str, History] | None
) -> AsyncIterator[Pool]:
    """A node with a setting of its own."""
    options: Any = {"timing": FAST, "prefix": backend.prefix, "history": history}
    async with Pool(backend.redis(), node_id=node_id, **options) as pool:
        yield pool


def setting(backend: Backend) -> list[int]:
    """Messages, age in ms, bytes, and until when it stands, in ms."""
    with backend.sync_client() as client:
        found: bytes = client.hget(numbers_of(backend), "history")
    return list(map(int, found.split()))


def rewrite(backend: Backend, *, ends_in: int) -> None:
    """Let the setting end so many ms from now on."""
    *bounds, _ = setting(backend)
    value = " ".join(map(str, [*bounds, now_ms(backend) + ends_in]))
    with backend.sync_client() as client:
        client.hset(numbers_of(backend), "history", value)


def now_ms(backend: Backend) -> int:
    """The time of the Redis that has the room."""
    with backend.sync_client() as client:
        seconds, micros = client.eval("return redis.call('TIME')", 1, numbers_of(backend))
    return int(seconds) * 1000 + int(micros) // 1000


async def send_all(publisher: Publisher | ClusterPool, *messages: str | bytes) -> None:
    """Broadcast messages one by one, so that each has an envelope."""
    for one in messages:
        await publisher.broadcast_message(ROOM, one)


# -- reading -----------------------------------------------------------------------------------


@async_test
async def test_broadcasts_are_kept_and_read(backend: Backend) -> None:
    """By nodes and publishers alike, in order; not those of other namespaces, nor targeted ones."""
    async with backend.pools(2, history=ROOMS) as (one, two), backend.publisher() as publisher:
        await one.host(ROOM, "alice")
        await one.host("lobby", "alice")
        before = await publisher.position(ROOM)
        await publisher.broadcast_message(ROOM, "1")
        await two.broadcast_message(ROOM, b"2")
        await publisher.send(ROOM, "alice", "hers")
        await asyncio.gather(*[publisher.broadcast_message(ROOM, str(n)) for n in range(3, 6)])
        await publisher.broadcast_message("lobby", "x")
        for reader in (one, two, publisher):
            found = await reader.history(ROOM)
            assert texts(found) == ["1", b"2", "3", "4", "5"]
            assert texts(await reader.history(ROOM, last=2)) == ["4", "5"]
            assert await reader.history("lobby") == []
        positions = [one.position for one in found]
        assert len(set(positions)) == 5
        assert await one.position(ROOM) == positions[-1] != before != ""
        assert await one.position("lobby") == ""


@async_test
async def test_broadcasts_that_leave_a_reader_out_are_not_read_for_it(backend: Backend) -> None:
    """The application itself reads all; closes and the end of memberships are no messages."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "alice")
        await send_all(pool, "all")
        await pool.broadcast_message(ROOM, "not alice", exclude=["alice"])
        await pool.broadcast_message(ROOM, "not 42", exclude_users=["42"])
        await pool.close_all("room:8")
        await pool.close_all(ROOM)
        assert texts(await pool.history(ROOM)) == ["all", "not alice", "not 42"]
        assert texts(await pool.history(ROOM, as_id="alice")) == ["all", "not 42"]
        assert texts(await pool.history(ROOM, as_id="bob", user="42")) == ["all", "not alice"]
        assert texts(await pool.history(ROOM, last=1, user="42")) == ["not alice"]


@async_test
async def test_messages_of_the_largest_size_are_read_in_pages(backend: Backend) -> None:
    """Each page has about one; a page of small ones has many."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "alice")
        small = [str(number) for number in range(450)]
        await send_all(pool, *small)
        large = [chr(65 + number) * MIB for number in range(4)]
        await send_all(pool, *large)
        assert texts(await pool.history(ROOM, last=500, timeout=20)) == small + large
        assert texts(await pool.history(ROOM, last=6, timeout=20)) == small[-2:] + large


@async_test
async def test_the_history_outlives_the_members(backend: Backend) -> None:
    """A room that is empty for a moment goes on being recorded; the keys have a time to live."""
    async with backend.pools(2, history=ROOMS) as (one, two), backend.publisher() as publisher:
        alice = await one.host(ROOM, "alice")
        await send_all(publisher, "1")
        await one.close(ROOM, "alice", confirm=True)
        await alice.wait_closed()
        await send_all(publisher, "2")
        assert texts(await two.history(ROOM)) == ["1", "2"]
        kept = backend.keys()
        seconds = ROOMS["room:*"].seconds
        assert kept[stream_of(backend)] > 1000 * seconds
        assert kept[numbers_of(backend)] > 1000 * seconds
        assert all(ttl > 0 for key, ttl in kept.items() if ROOM in key and "numbers" in key)


@async_test
async def test_a_history_that_begins_anew_between_two_pages_is_read_no_further(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages that are newer would stand ahead of older ones."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "alice")
        await send_all(pool, *map(str, range(250)))
        histories = pool._parts.backplane.histories
        read = histories._read

        async def between(*arguments: Any) -> Any:
            page = await read(*arguments)
            with backend.sync_client() as client:
                client.hdel(numbers_of(backend), "epoch")
            await send_all(pool, "new")
            return page

        monkeypatch.setattr(histories, "_read", between)
        assert texts(await pool.history(ROOM, last=250, timeout=20)) == list(
            map(str, range(50, 250))
        )
        monkeypatch.undo()
        assert texts(await pool.history(ROOM)) == ["new"]


# -- bounds ------------------------------------------------------------------------------------


@async_test
async def test_a_history_has_no_more_than_so_many_messages(backend: Backend) -> None:
    """Exactly as many are read; a sixteenth more may be in Redis."""
    rules = {"room:*": History(messages=32)}
    async with backend.pools(1, history=rules) as (pool,):
        await pool.host(ROOM, "alice")
        await send_all(pool, *[str(number) for number in range(100)])
        assert texts(await pool.history(ROOM, last=100)) == [str(n) for n in range(68, 100)]
        with backend.sync_client() as client:
            assert 32 <= client.xlen(stream_of(backend)) <= 34


@async_test
async def test_a_history_has_no_messages_older_than_so_many_seconds(backend: Backend) -> None:
    """Readers skip them at once; the next messages remove them, or the stream expires."""
    rules = {"room:*": History(seconds=1)}
    async with backend.pools(1, history=rules) as (pool,):
        await pool.host(ROOM, "alice")
        await send_all(pool, "1", "2")
        assert texts(await pool.history(ROOM)) == ["1", "2"]
        position = await pool.position(ROOM)

        async def forgotten() -> bool:
            return await pool.history(ROOM) == []

        await eventually(forgotten)
        assert await pool.position(ROOM) == position
        await send_all(pool, "3")
        assert texts(await pool.history(ROOM)) == ["3"]
        with backend.sync_client() as client:
            assert client.xlen(stream_of(backend)) <= 2
            assert 0 < client.pttl(stream_of(backend)) <= 2100


@async_test
async def test_a_history_has_no_more_than_so_many_bytes(backend: Backend) -> None:
    """A sixteenth more may be in Redis; a message that is larger than all is kept alone."""
    rules = {"room:*": History(bytes=16 * 1024)}
    async with backend.pools(1, history=rules) as (pool,):
        await pool.host(ROOM, "alice")
        await send_all(pool, *["x" * 900 for _ in range(50)])
        found = await pool.history(ROOM, last=100)
        with backend.sync_client() as client:
            entries = client.xrange(stream_of(backend))
            size = sum(len(fields[b"e"]) + 100 for _, fields in entries)
        assert 10 <= len(found) == len(entries)
        assert size <= 17 * 1024 + 1100
        await send_all(pool, "y" * 64 * 1024)
        assert texts(await pool.history(ROOM)) == ["y" * 64 * 1024]
        await send_all(pool, "z")
        assert texts(await pool.history(ROOM))[-1] == "z"


# -- faults ------------------------------------------------------------------------------------


@async_test
async def test_positions_begin_anew_with_an_epoch(backend: Backend) -> None:
    """When the numbers are gone, or all keys are: what is left of the history is not read."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        alice = await pool.host(ROOM, "alice")
        await send_all(pool, "1", "2")
        former = await pool.position(ROOM)
        with backend.sync_client() as client:
            client.delete(numbers_of(backend))
        assert await pool.position(ROOM) == ""
        assert await pool.history(ROOM) == []

        async def recorded() -> bool:
            await send_all(pool, "3")
            return bool(await pool.history(ROOM))

        await eventually(recorded)  # once the node has renewed its setting
        assert set(texts(await pool.history(ROOM))) == {"3"}
        epoch, _ = (await pool.position(ROOM)).split(".")
        assert int(epoch) > int(former.split(".")[0])
        await alice.wait_sent(3)


@async_test
async def test_an_epoch_that_is_lost_alone_ends_the_positions(backend: Backend) -> None:
    """As when a person deletes the field, or another server takes over."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "alice")
        await send_all(pool, "1", "2")
        with backend.sync_client() as client:
            client.hdel(numbers_of(backend), "epoch")
        await send_all(pool, "3")
        assert texts(await pool.history(ROOM)) == ["3"]
        assert (await pool.position(ROOM)).endswith(".1")


@pytest.mark.parametrize("value", ["", "nonsense", "1 2 3 4", "9999999999999999999 0 0 0 0"])
@async_test
async def test_positions_that_are_none_begin_anew(backend: Backend, value: str) -> None:
    """With another epoch: no position names two messages."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "alice")
        await send_all(pool, "1", "2")
        former = (await pool.position(ROOM)).split(".")[0]
        with backend.sync_client() as client:
            client.hset(numbers_of(backend), "epoch", f"{former} {value}")
        await send_all(pool, "3")
        assert texts(await pool.history(ROOM)) == ["3"]
        epoch, number = (await pool.position(ROOM)).split(".")
        assert int(epoch) > int(former)
        assert number == "1"


@async_test
async def test_a_key_of_another_type_at_the_stream_is_replaced(backend: Backend) -> None:
    """Sends never fail for it; a reader finds what was recorded since."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "alice")
        await send_all(pool, "1")
        with backend.sync_client() as client:
            client.delete(stream_of(backend))
            client.set(stream_of(backend), "oops")
        await send_all(pool, "2")
        assert texts(await pool.history(ROOM)) == ["2"]
        assert (await pool.position(ROOM)).endswith(".2")
        assert backend.keys()[stream_of(backend)] > 0
        with backend.sync_client() as client:
            client.delete(stream_of(backend))
            client.set(stream_of(backend), "oops")
        assert await pool.history(ROOM) == []


@async_test
async def test_a_stream_that_is_deleted_comes_back_with_a_time_to_live(backend: Backend) -> None:
    """Also between two marks."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        await pool.host(ROOM, "alice")
        await send_all(pool, "1", "2")
        with backend.sync_client() as client:
            client.delete(stream_of(backend))
        await send_all(pool, "3")
        assert texts(await pool.history(ROOM)) == ["3"]
        assert backend.keys()[stream_of(backend)] > 0


@async_test
async def test_an_entry_that_redis_refuses_ends_the_positions(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """As behind an entry that a person has added: what is not there has no position."""
    async with backend.pools(1, history=ROOMS) as (pool,):
        alice = await pool.host(ROOM, "alice")
        await send_all(pool, "1")
        former = (await pool.position(ROOM)).split(".")[0]
        with backend.sync_client() as client:
            client.xadd(stream_of(backend), {"a": "b"}, id="999999-0")
        assert texts(await pool.history(ROOM)) == ["1"]
        await send_all(pool, "2")
        assert await pool.position(ROOM) == ""
        await send_all(pool, "3")
        assert texts(await pool.history(ROOM)) == ["3"]
        assert int((await pool.position(ROOM)).split(".")[0]) > int(former)
        assert await alice.wait_sent(3) == ["1", "2", "3"]
        assert "could not be written" in caplog.text


# -- settings ----------------------------------------------------------------------------------


@async_test
async def test_the_larger_of_two_settings_counts(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """Each number by itself, in any order; either node warns once, and names both."""
    first = {"room:*": History(messages=10, seconds=60)}
    second = {"room:*": History(messages=20, seconds=30)}
    async with node(backend, "one", first) as one, node(backend, "two", second) as two:
        for pool in (one, two):
            await pool.host(ROOM, pool.node_id)
        await send_all(one, *[str(number) for number in range(30)])
        assert texts(await one.history(ROOM)) == [str(number) for number in range(10, 30)]
        assert setting(backend)[:2] == [20, 60_000]
        await eventually(lambda: caplog.text.count("asks for more") == 2)
        await asyncio.sleep(1.5 * one.timing.heartbeat)
    lines = [line for line in caplog.messages if "asks for more" in line]
    assert len(lines) == 2
    assert all("messages=20, seconds=60" in line for line in lines)
    assert {"messages=10" in line for line in lines} == {True, False}


@async_test
async def test_a_larger_setting_lapses_when_no_node_renews_it(backend: Backend) -> None:
    """It stands for its time, then that of the nodes that are there counts."""
    large, small = History(messages=20), History(messages=10)
    async with node(backend, "one", {ROOM: small}) as one:
        async with node(backend, "two", {ROOM: large}) as two:
            await one.host(ROOM, "alice")
            await two.host(ROOM, "bob")
            assert setting(backend)[0] == 20
        await one.host(ROOM, "carol")
        assert setting(backend)[0] == 20
        rewrite(backend, ends_in=30_000)  # as if its time were nearly over
        await one.host(ROOM, "dave")
        assert setting(backend)[0] == 10
        assert setting(backend)[3] > now_ms(backend) + 120_000


@async_test
async def test_each_number_of_a_setting_is_renewed_by_itself(backend: Backend) -> None:
    """One node asks for more messages, another for more time: neither number ever lapses, until
    the node that asked for it has gone."""
    first, second = History(messages=10, seconds=60), History(messages=20, seconds=30)

    def ends() -> list[int]:
        with backend.sync_client() as client:
            return list(map(int, client.hget(numbers_of(backend), "ends").split()))

    async with node(backend, "one", {ROOM: first}) as one:
        async with node(backend, "two", {ROOM: second}) as two:
            for pool in (one, two):
                await pool.host(ROOM, pool.node_id)
            before = ends()
            await eventually(lambda: all(map(int.__gt__, ends(), before)))
            assert setting(backend)[:2] == [20, 60_000]
            assert setting(backend)[3] >= max(before)
        lapsing = " ".join(map(str, [now_ms(backend) + 30_000, *ends()[1:]]))
        with backend.sync_client() as client:
            client.hset(numbers_of(backend), "ends", lapsing)
        await one.host(ROOM, "dave")
        assert setting(backend)[:2] == [10, 60_000]


@async_test
async def test_a_history_goes_on_until_no_node_asks_for_it(backend: Backend) -> None:
    """A rolling change from on to off: on until the setting has lapsed; then it is removed."""
    async with node(backend, "off", None) as off:
        async with node(backend, "on", {ROOM: History()}) as on:
            await off.host(ROOM, "alice")
            await send_all(off, "0")
            assert await off.position(ROOM) == ""
            await on.host(ROOM, "bob")
            await send_all(off, "1")
            before = setting(backend)
            await eventually(lambda: setting(backend)[3] > before[3])  # renewed by heartbeats
        await send_all(off, "2")
        assert texts(await off.history(ROOM)) == ["1", "2"]
        rewrite(backend, ends_in=-1)
        assert await off.history(ROOM) == []
        await send_all(off, "3")
        assert backend.keys_of("history") == []
        with backend.sync_client() as client:
            assert set(client.hkeys(numbers_of(backend))) <= {b"epoch", b"last", b"former"}
            assert client.hget(numbers_of(backend), "epoch").isdigit()
        async with node(backend, "again", {ROOM: History()}) as again:
            await again.host(ROOM, "bob")
            await send_all(off, "4")
            assert texts(await off.history(ROOM)) == ["4"]


# -- secrets -----------------------------------------------------------------------------------


@async_test
async def test_sealed_broadcasts_are_read_any_number_of_times(backend: Backend) -> None:
    """Also by a process that has never heard their sender, and after a change of the secret."""
    other = f"another {SECRET}"
    async with backend.pools(1, history=ROOMS, secret=SECRET) as (pool,):
        await pool.host(ROOM, "alice")
        async with backend.publisher(secret=SECRET) as publisher:
            await asyncio.gather(*[publisher.broadcast_message(ROOM, str(n)) for n in range(5)])
        for secret, found in (((other, SECRET), list("01234")), (other, [])):
            async with backend.publisher(secret=secret) as reader:
                assert texts(await reader.history(ROOM)) == found
                assert texts(await reader.history(ROOM)) == found
                assert reader.counters.dropped_forged == (10 if secret == other else 0)


@async_test
async def test_recorded_items_are_refused_where_they_do_not_belong(backend: Backend) -> None:
    """A second time, in another namespace, at another time, or without a seal."""
    async with backend.pools(1, history=ROOMS, secret=SECRET) as (pool,):
        await pool.host(ROOM, "alice")
        await pool.host("room:8", "alice")
        await send_all(pool, "1", "2")
        await pool.broadcast_message("room:8", "8")
        with backend.sync_client() as client:
            (_, one), _ = client.xrange(stream_of(backend))
            ((_, eighth),) = client.xrange(stream_of(backend, "room:8"))
            late = {b"t": int(one[b"t"]) + 60_000, b"e": one[b"e"]}
            plain = {**one, b"e": one[b"e"].partition(b"\n")[0] + b"\n" + broadcast(True, b"x")}
            epoch, _, rest = client.hget(numbers_of(backend), "epoch").split(b" ", 2)
            for position, entry in enumerate((one, eighth, late, plain), 3):
                fields = {**entry, b"e": placed(entry[b"e"], epoch, position)}
                client.xadd(stream_of(backend), fields, id=f"{position}-0")
            client.hset(numbers_of(backend), "epoch", b"%s 6 %s" % (epoch, rest))
        assert texts(await pool.history(ROOM)) == ["1", "2"]
        assert pool.counters.dropped_forged == 4


def placed(payload: bytes, epoch: bytes, position: int) -> bytes:
    """The same envelope at another place."""
    header, _, items = payload.partition(b"\n")
    marks = header.partition(b" ")[2].rpartition(b" ")[0]
    return b"\xc1\x01%s %s %d\n%s" % (epoch, marks, position, items)
