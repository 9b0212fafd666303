"""Gaps of nodes while the history itself, Redis or a clock is harmed."""

import asyncio
import time
from typing import Any

import pytest

from cluster_pool import History, Publisher, Timing
from cluster_pool.testing import FAST
from tests.cluster.gaps import (
    ROOMS,
    SECRET,
    far_node,
    gaps_of,
    hold_up,
    missed,
    numbers_in,
    recovery_in,
)
from tests.clusters import Pool, connection_of
from tests.servers import RedisServer
from tests.support import async_test, eventually

pytestmark = pytest.mark.real


@async_test
async def test_messages_that_have_left_the_history_are_a_gap(own_server: RedisServer) -> None:
    """Exactly so many; those that are left come."""
    rules = {"room:*": History(messages=16)}
    async with far_node(own_server, history=rules) as (proxy, far, publisher):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice")
        await publisher.broadcast_message("room:7", "0")
        assert await alice.wait_sent() == ["0"]
        await proxy.refuse()
        for number in range(1, 101):
            await publisher.broadcast_message("room:7", str(number))
        await proxy.accept()
        await eventually(lambda: missed(gaps, "room:7"), 20)
        await eventually(lambda: alice.sent[-1] == "100", 20)
        got = numbers_in(alice)[1:]
        assert got == list(range(got[0], 101))
        assert 16 <= len(got) <= 18
        assert missed(gaps, "room:7") == 100 - len(got)
        assert all(gap.exact for gap in gaps)


@pytest.mark.parametrize("harm", ["stream", "numbers"])
@async_test
async def test_a_history_that_is_gone_is_a_gap(own_server: RedisServer, harm: str) -> None:
    """Its stream was deleted, or it has begun anew under another epoch: what follows comes."""
    async with far_node(own_server) as (proxy, far, publisher):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice")
        await publisher.broadcast_message("room:7", "0")
        assert await alice.wait_sent() == ["0"]
        await proxy.refuse()
        for number in range(1, 6):
            await publisher.broadcast_message("room:7", str(number))
        key = "cluster_pool:{room:7}:" + ("history" if harm == "stream" else "numbers")
        await asyncio.sleep(0.05)  # epochs of servers that follow each other are of 10 ms
        own_server.command("DEL", key)
        await publisher.broadcast_message("room:7", "6")
        await proxy.accept()
        await eventually(lambda: gaps, 20)
        await publisher.broadcast_message("room:7", "7")
        await eventually(lambda: alice.sent[-1] == "7", 20)
        if harm == "stream":
            assert alice.sent == ["0", "6", "7"]
            assert missed(gaps, "room:7") == 5
            assert all(gap.exact for gap in gaps)
        else:
            assert alice.sent == ["0", "7"]
            assert not all(gap.exact for gap in gaps)


@async_test
async def test_members_get_what_they_missed_although_the_clock_was_set_back(
    own_server: RedisServer,
) -> None:
    """Their claims are of times that are yet to come; only newer ones tell who came later."""
    async with far_node(own_server) as (proxy, far, publisher):
        alice = await far.host("room:7", "alice")
        (membership,) = connection_of(alice)._memberships
        assert membership.claim is not None
        ahead = membership.claim.time + 3_600_000_000
        membership.claim = membership.claim._replace(time=ahead)
        far._parts.ownership.newest = ahead
        await proxy.refuse()
        await publisher.broadcast_message("room:7", "1")
        await proxy.accept()
        assert await alice.wait_sent(1, 30) == ["1"]


@async_test
async def test_sealed_messages_that_are_heard_late_are_no_recordings(
    own_server: RedisServer,
) -> None:
    """While a history is read, by a process that is held up for longer than a seal is good for."""
    async with far_node(own_server, secret=SECRET) as (proxy, far, publisher):
        alice = await far.host("room:7", "alice")
        recovery = recovery_in(far)
        asked, reading = hold_up(recovery)
        await proxy.refuse()
        await publisher.broadcast_message("room:7", "0")
        await proxy.accept()
        await asyncio.wait_for(asked.wait(), 30)
        now = recovery._now
        recovery._now = lambda: now() + 60_000_000
        await publisher.broadcast_message("room:7", "1")
        await eventually(lambda: recovery._bytes)
        reading.set()
        assert await alice.wait_sent(2, 30) == ["0", "1"]
        assert far.counters.dropped_forged == 0


@async_test
async def test_a_redis_that_is_busy_is_asked_again(own_server: RedisServer) -> None:
    """Another script runs there for long while the history is read, which has everything still."""
    own_server.command("CONFIG", "SET", "busy-reply-threshold", "20")
    async with far_node(own_server, timing=Timing()) as (proxy, far, publisher):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice")
        recovery = recovery_in(far)
        read, key = recovery._page, "cluster_pool:{room:7}:numbers"

        async def held_up(*arguments: Any) -> Any:
            recovery._page = read
            async with own_server.client() as client:
                endless = asyncio.create_task(client.eval("while true do end", 1, key))
                try:
                    await eventually(lambda: "BUSY" in own_server.command("HLEN", key))
                    return await read(*arguments)
                finally:
                    own_server.command("SCRIPT", "KILL")
                    await asyncio.gather(endless, return_exceptions=True)

        recovery._page = held_up
        await proxy.refuse()
        for number in range(3):
            await publisher.broadcast_message("room:7", str(number))
        await proxy.accept()
        assert await alice.wait_sent(3, 30) == ["0", "1", "2"]
        assert recovery._page == read
        assert missed(gaps, "room:7") == 0


@async_test
async def test_a_redis_that_comes_back_empty_begins_a_history_anew(
    own_server: RedisServer,
) -> None:
    """Nothing old is sent, and nothing new is lost; no gap is called exact."""
    async with (
        Pool(own_server.url, node_id="one", timing=FAST, history=ROOMS) as one,
        Publisher(own_server.url) as publisher,
    ):
        gaps = gaps_of(one)
        alice = await one.host("room:7", "alice")
        for number in range(3):
            await publisher.broadcast_message("room:7", str(number))
        assert numbers_in(alice) == [0, 1, 2] or await alice.wait_sent(3)
        own_server.kill()
        await eventually(lambda: not one.ready)
        own_server.start()
        await eventually(lambda: one.ready, 20)

        async def recorded() -> bool:
            await publisher.broadcast_message("room:7", "9", timeout=10)
            return bool(await publisher.history("room:7", timeout=10))

        await eventually(recorded, 20)
        past = await publisher.history("room:7", timeout=10)
        assert {one.message for one in past} == {"9"}
        await publisher.broadcast_message("room:7", "10", timeout=10)
        await eventually(lambda: alice.sent[-1] == "10", 10)
        got = numbers_in(alice)
        assert got[:3] == [0, 1, 2]
        assert set(got[3:-1]) == {9}
        assert all(not gap.exact for gap in gaps)


@pytest.mark.parametrize("bounds", ["0 120000 1000", "9 999 1000", f"9 120000 {10**15}"])
@async_test
async def test_a_setting_that_is_none_ends_the_history_alone(
    own_server: RedisServer, bounds: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It was written by hand while a node was cut off: the node comes back, and sets it right."""
    async with far_node(own_server) as (proxy, far, publisher):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice")
        await publisher.broadcast_message("room:7", "0")
        assert await alice.wait_sent() == ["0"]
        await proxy.refuse()
        await publisher.broadcast_message("room:7", "1")
        numbers, ends = "cluster_pool:{room:7}:numbers", int(1000 * time.time()) + 600_000
        own_server.command("HSET", numbers, "history", f"{bounds} {ends}")
        assert await publisher.history("room:7") == []
        await publisher.broadcast_message("room:7", "2")
        await proxy.accept()
        await eventually(lambda: far.ready, 30)
        await eventually(lambda: missed(gaps, "room:7") == 2, 30)

        async def recorded() -> bool:
            await publisher.broadcast_message("room:7", "3")
            return bool(await publisher.history("room:7"))

        await eventually(recorded, 30)
        await eventually(lambda: alice.sent[-1] == "3")
        assert "by itself" not in caplog.text


@async_test
async def test_entries_of_others_are_never_delivered(
    own_server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A person added them: at a place that is none, at a time that is none, without an envelope."""
    async with far_node(own_server) as (proxy, far, publisher):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice")
        await publisher.broadcast_message("room:7", "0")
        assert await alice.wait_sent(1, 30) == ["0"]
        await proxy.refuse()
        await publisher.broadcast_message("room:7", "1")
        stream = "cluster_pool:{room:7}:history"
        with own_server.sync_client() as client:
            ((_, own),) = client.xrange(stream, "2-0")
            for part, fields in enumerate(({"a": "b"}, {**own, b"t": "9" * 5000}, own), 1):
                client.xadd(stream, fields, id=f"2-{part}")
        await publisher.broadcast_message("room:7", "2")
        assert len(await publisher.history("room:7")) == 3
        await proxy.accept()
        assert await alice.wait_sent(3, 30) == ["0", "1", "2"]
        await eventually(lambda: far.ready, 30)
        assert gaps == []
        assert "by itself" not in caplog.text
