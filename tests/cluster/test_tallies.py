"""Broadcasts that ask how many have got them, on every kind of Redis."""

import asyncio
import contextlib

import msgpack
import pytest

from cluster_pool import (
    BroadcastReport,
    Connection,
    History,
    InvalidValueError,
    Limits,
    PoolClosedError,
)
from cluster_pool.core import envelope
from cluster_pool.local.handshake import hold, release_hold
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend
from tests.support import async_test, eventually

ROOM = "room:7"


@pytest.mark.parametrize("secret", [None, "not known to strangers"])
@async_test
async def test_every_node_says_how_many_have_got_it(backend: Backend, secret: str | None) -> None:
    """With ids and users left out, from a node and from a publisher."""
    publisher = backend.publisher(secret=secret)
    async with backend.pools(3, secret=secret) as (one, two, three), publisher:
        members = [
            await pool.host("n", f"{number}", user=f"{number % 2}")
            for number, pool in enumerate((one, one, two, two, two))
        ]
        await three.host("elsewhere", "0")
        for sender in (one, three, publisher):
            said = await sender.broadcast_message("n", "to all", confirm=True)
            assert said == BroadcastReport(2, delivered=5)
            assert said
            assert said.complete
            said = await sender.broadcast_json_message("n", {}, ["0", "x"], confirm=True)
            assert said == BroadcastReport(2, delivered=4)
            said = await sender.broadcast_message("n", "x", exclude_users=["1"], confirm=True)
            assert said == BroadcastReport(2, delivered=3)
            said = await sender.broadcast_message("n", "x", [*"01234"], confirm="client")
            assert said == BroadcastReport(2)
            assert not said
            assert said.complete
        assert len(members[0].sent) == 6
        for pool in (one, two, three):
            assert pool.statistics()["dropped_garbage"] == 0
            assert pool.statistics()["dropped_forged"] == 0


@async_test
async def test_without_members_nobody_is_asked(backend: Backend) -> None:
    """At once; without ``confirm`` the result is a number, as ever."""
    async with backend.pools(1) as (one,):
        await one.host("elsewhere", "0")
        assert await one.broadcast_message("n", "x", confirm=True, timeout=60) == BroadcastReport()
        assert await one.broadcast_message("n", "x") == 0
        with pytest.raises(InvalidValueError):
            await one.broadcast_message("n", "x", confirm="owner")  # type: ignore[call-overload]


@async_test
async def test_a_full_outbox_is_counted(backend: Backend) -> None:
    """A client that is closing, too, while its membership lasts."""
    async with backend.pools(limits=Limits(outbox_bytes=100)) as (one, two):
        websocket = FakeWebSocket()
        connection = Connection("bob", "n", websocket)
        hold(connection)
        await two.new_connection(connection)
        await two.host("n", "alice")
        said = await one.broadcast_message("n", "x" * 60, confirm=True)
        assert said == BroadcastReport(1, delivered=2)
        said = await one.broadcast_message("n", "x" * 60, confirm=True)
        assert said == BroadcastReport(1, delivered=1, refused=1)
        assert said
        assert not said.complete
        release_hold(connection)
        await websocket.wait_sent()


@async_test
async def test_many_members_of_one_node(backend: Backend) -> None:
    """More than are served in one turn; other broadcasts keep their places."""
    async with backend.pools(limits=Limits()) as (one, two):
        some = await asyncio.gather(*[two.host("n", str(number)) for number in range(600)])
        async with asyncio.TaskGroup() as group:
            told = [
                group.create_task(one.broadcast_message("n", str(at), confirm=True, timeout=30))
                for at in range(3)
            ]
            group.create_task(one.broadcast_message("n", "3"))
        assert {one.result() for one in told} == {BroadcastReport(1, delivered=600)}
        await eventually(lambda: all(one.sent == ["0", "1", "2", "3"] for one in some))


@async_test
async def test_a_history_keeps_what_was_confirmed(backend: Backend) -> None:
    """It is read like any other, and nobody is asked again."""
    async with backend.pools(history={"room:*": History()}) as (one, two):
        first = await one.host(ROOM, "alice")
        said = await two.broadcast_message(ROOM, "1", confirm=True)
        assert said == BroadcastReport(1, delivered=1)
        said = await two.broadcast_message(ROOM, "2", ["alice"], exclude_users=["7"], confirm=True)
        assert said == BroadcastReport(1)
        await first.wait_sent()
        newcomer = await two.host(ROOM, "bob", rewind=10)
        assert await newcomer.wait_sent(2) == ["1", "2"]
        found = await two.history(ROOM, as_id="alice")
        assert [one.message for one in found] == ["1"]


@async_test
async def test_foreign_subscriber_is_silent(backend: Backend) -> None:
    """A foreign subscriber counts as a node that does not answer; so does a node of an earlier
    version, which reads the item without what it asks."""
    channel = f"{backend.prefix}:{{n}}"
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        async with backend.listening(channel) as heard:
            said = await one.broadcast_message("n", "x", confirm=True, timeout=1)
            assert said == BroadcastReport(2, delivered=1, silent=1)
            _, payload = await heard.get()
        _, begins = envelope.read_header(payload)
        assert msgpack.unpackb(payload[begins:])[:3] == [envelope.TEXT, b"x", []]
        assert await alice.wait_sent() == ["x"]


@async_test
async def test_a_request_that_cannot_be_read_is_counted(backend: Backend) -> None:
    """And harms nothing that comes later."""
    channel = f"{backend.prefix}:{{n}}"
    async with backend.pools(1) as (one,):
        alice = await one.host("n", "alice")
        broken = msgpack.packb([envelope.TEXT, b"x", [], ["node-1"], 5, 0])
        await backend.publish(channel, envelope.empty_envelope("stranger 1") + broken)
        assert await one.broadcast_message("n", "y", confirm=True) == BroadcastReport(
            1, delivered=1
        )
        assert await alice.wait_sent() == ["y"]
        await eventually(lambda: one.statistics()["dropped_garbage"] == 1)


@async_test
async def test_the_sender_stops_meanwhile(backend: Backend) -> None:
    """The call ends with what has come, or raises; it does not wait for its deadline."""
    publisher = backend.publisher()
    async with backend.pools(1) as (one,), backend.listening(f"{backend.prefix}:{{n}}"):
        await one.host("n", "alice")
        await publisher.start()
        task = asyncio.create_task(publisher.broadcast_message("n", "x", confirm=True, timeout=60))
        await eventually(lambda: one.statistics()["delivered"] == 1)
        await publisher.stop()
        with contextlib.suppress(PoolClosedError):
            assert (await asyncio.wait_for(task, 20)).silent >= 1
