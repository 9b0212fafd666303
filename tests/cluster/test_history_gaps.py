"""Gaps are closed from the history: real servers behind a network that is cut under traffic."""

import asyncio
from typing import Any

import pytest

from cluster_pool import History, Limits, Publisher
from cluster_pool.testing import FAST
from tests.cluster.gaps import (
    ROOMS,
    SECRET,
    Traffic,
    far_node,
    gaps_of,
    hold_up,
    missed,
    numbers_in,
    recovery_in,
)
from tests.clusters import Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually

pytestmark = pytest.mark.real


@pytest.mark.parametrize("rooms", [1, 100])
@pytest.mark.parametrize("secret", [None, SECRET])
@async_test
async def test_interruptions_lose_nothing(
    own_server: RedisServer, rooms: int, secret: str | None
) -> None:
    """Three cuts under traffic: each member gets each message once, in order; no gap is told."""
    names = [f"room:{number}" for number in range(rooms)]
    async with far_node(own_server, secret=secret) as (proxy, far, publisher):
        gaps = gaps_of(far)
        sockets = [await far.host(name, "alice") for name in names]
        sent = await Traffic(publisher, names).through_cuts(proxy, far)
        await eventually(lambda: all(len(one.sent) >= sent for one in sockets), 60)
        for socket in sockets:
            assert numbers_in(socket) == list(range(sent))
        assert far.counters.recovered > 0
        assert sum(missed(gaps, name) for name in names) == 0
        assert far.counters.dropped_forged == 0


@async_test
async def test_a_namespace_without_a_history_has_a_gap(own_server: RedisServer) -> None:
    """Beside one with a history, which has none."""
    async with far_node(own_server) as (proxy, far, publisher):
        gaps = gaps_of(far)
        kept, lost = await far.host("room:7", "alice"), await far.host("lobby", "alice")
        for name in ("room:7", "lobby"):
            await publisher.broadcast_message(name, "0")
        await eventually(lambda: kept.sent == lost.sent == ["0"])
        await proxy.refuse()
        for name in ("room:7", "lobby"):
            for number in range(1, 6):
                await publisher.broadcast_message(name, str(number))
        await proxy.accept()
        await eventually(lambda: gaps, 20)
        assert numbers_in(kept) == list(range(6)) or await kept.wait_sent(6)
        assert [gap.namespaces for gap in gaps] == [{"lobby": 5}]
        assert all(gap.exact for gap in gaps)
        assert lost.sent == ["0"]
        assert numbers_in(kept) == list(range(6))


@async_test
async def test_a_plain_publish_is_no_place_in_a_history(own_server: RedisServer) -> None:
    """The last that was heard before a cut: what came before it is not read a second time."""
    async with far_node(own_server) as (proxy, far, publisher):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice")
        for number in range(3):
            await publisher.broadcast_message("room:7", str(number))
        assert await alice.wait_sent(3, 30) == ["0", "1", "2"]
        own_server.command(own_server.publish, "cluster_pool:{room:7}", "99")
        assert await alice.wait_sent(4, 30) == ["0", "1", "2", "99"]
        await proxy.refuse()
        await publisher.broadcast_message("room:7", "3")
        await proxy.accept()
        await eventually(lambda: far.ready, 20)
        await publisher.broadcast_message("room:7", "4")
        await eventually(lambda: alice.sent[-1] == "4", 20)
        assert numbers_in(alice) == [0, 1, 2, 99, 3, 4]
        assert gaps == []


@async_test
async def test_messages_to_single_members_are_in_no_gap(own_server: RedisServer) -> None:
    """They are recorded beside the broadcasts, and were heard elsewhere: whether the history still
    has them or not, only broadcasts that have left it are counted."""
    rules = {"room:*": History(messages=16)}
    async with far_node(own_server, history=rules) as (proxy, far, publisher):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice", user="42")
        await publisher.broadcast_message("room:7", "0")
        for number in range(1, 51):
            await publisher.send("room:7", "alice", str(number))
        await alice.wait_sent(51, 30)
        await proxy.refuse()
        await proxy.accept()
        await eventually(lambda: far.counters.generations > 1 and far.ready, 30)
        for number in (51, 52):
            await publisher.broadcast_message("room:7", str(number))
        await alice.wait_sent(53, 30)
        assert gaps == []
        for number in range(53, 103):
            await publisher.send("room:7", "alice", str(number))
        await alice.wait_sent(103, 30)
        await proxy.refuse()
        for number in range(103, 143):
            await publisher.broadcast_message("room:7", str(number))
        await proxy.accept()
        await eventually(lambda: alice.sent[-1] == "142", 30)
        got = numbers_in(alice)
        await eventually(lambda: gaps, 20)
        assert missed(gaps, "room:7") == 143 - len(got)
        assert all(gap.exact for gap in gaps)


@async_test
async def test_recovered_messages_reach_those_that_were_members(own_server: RedisServer) -> None:
    """Not those that they exclude, nor those that came later; a close closes the former alone."""
    async with far_node(own_server) as (proxy, far, publisher):
        alice, bob = await far.host("room:7", "alice"), await far.host("room:7", "bob", user="42")
        recovery = recovery_in(far)
        reading = asyncio.Event()
        read = recovery._page

        async def later(*arguments: Any) -> Any:
            await reading.wait()
            return await read(*arguments)

        recovery._page = later  # type: ignore[method-assign]
        await proxy.refuse()
        await publisher.broadcast_message("room:7", "all")
        await publisher.broadcast_message("room:7", "not alice", exclude=["alice"])
        await publisher.broadcast_message("room:7", "not 42", exclude_users=["42"])
        await publisher.close_all("room:7", 4000, "over")
        await proxy.accept()
        await eventually(lambda: far.ready, 20)
        carol = await far.host("room:7", "carol")
        await publisher.broadcast_message("room:7", "live")
        reading.set()
        assert await carol.wait_sent() == ["live"]
        assert alice.sent == ["all", "not 42"]
        assert bob.sent == ["all", "not alice"]
        assert alice.closed == bob.closed == (4000, "over")
        assert carol.closed is None


@async_test
async def test_live_messages_are_not_lost_for_want_of_room(own_server: RedisServer) -> None:
    """As much as the inbox may have is held while a history is read, and half of it was read."""
    limits = Limits(inbox_bytes=64_000)
    async with far_node(own_server, limits=limits) as (proxy, far, publisher):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice")
        recovery = recovery_in(far)
        asked, reading = hold_up(recovery)
        await proxy.refuse()
        for number in range(40):
            await publisher.broadcast_message("room:7", str(number).zfill(1000))
        await proxy.accept()
        await asyncio.wait_for(asked.wait(), 30)
        for number in range(40, 95):
            await publisher.broadcast_message("room:7", str(number).zfill(1000))
        await eventually(lambda: recovery._bytes > 50_000)
        reading.set()
        await eventually(lambda: alice.sent and numbers_in(alice)[-1] == 94, 20)
        assert numbers_in(alice) == list(range(95))
        assert gaps == []


@async_test
async def test_two_nodes_that_are_cut_off_both_recover(own_server: RedisServer) -> None:
    """Over links that come back at once: what they heard last differs."""
    async with (
        own_server.network() as proxy,
        Pool(proxy.url, node_id="one", timing=FAST, history=ROOMS) as one,
        Pool(proxy.url, node_id="two", timing=FAST, history=ROOMS) as two,
        Publisher(own_server.url) as publisher,
    ):
        gaps = [gaps_of(one), gaps_of(two)]
        sockets = [await pool.host("room:7", pool.node_id) for pool in (one, two)]
        traffic = Traffic(publisher, ["room:7"])
        for _ in range(3):
            await traffic.more(5)
            await proxy.cut()
            await eventually(lambda: one.ready and two.ready, 20)
        sent = await traffic.end()
        for socket in sockets:
            await eventually(lambda one=socket: len(one.sent) >= sent, 20)
            assert numbers_in(socket) == list(range(sent))
        assert gaps == [[], []]


@async_test
async def test_broadcasts_of_this_node_that_it_did_not_hear_back_come(
    own_server: RedisServer,
) -> None:
    """Published over the link that was lost, or heard only after it; each comes once."""
    async with (
        own_server.network() as proxy,
        Pool(proxy.url, node_id="far", timing=FAST, history=ROOMS) as far,
    ):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice")
        await far.broadcast_message("room:7", "0")
        assert await alice.wait_sent() == ["0"]
        shard = far._parts.backplane.topology.of("room:7")
        subscriber, before = shard.subscriptions._subscriber, shard.generation
        assert subscriber is not None
        subscriber._on_message = lambda channel, payload: None
        for number in range(1, 4):
            await far.broadcast_message("room:7", str(number))
        await proxy.cut()
        await eventually(lambda: shard.generation > before and shard.up and far.ready, 20)
        await far.broadcast_message("room:7", "4")
        assert await alice.wait_sent(5) == ["0", "1", "2", "3", "4"]
        assert missed(gaps, "room:7") == 0


@async_test
async def test_the_first_messages_of_a_history_are_recovered(own_server: RedisServer) -> None:
    """The claim of the first member began it, and the link broke before any message was heard."""
    async with far_node(own_server) as (proxy, far, publisher):
        gaps = gaps_of(far)
        sockets = [await far.host(name, "alice") for name in ("room:7", "room:8")]
        await proxy.refuse()
        await publisher.broadcast_message("room:7", "1")
        await proxy.accept()
        await eventually(lambda: far.ready, 20)
        for number in (2, 3):
            for name in ("room:7", "room:8"):
                await publisher.broadcast_message(name, str(number))
        assert await sockets[0].wait_sent(3) == ["1", "2", "3"]
        assert await sockets[1].wait_sent(2) == ["2", "3"]
        assert gaps == []


@async_test
async def test_a_history_that_another_node_has_begun_is_read(own_server: RedisServer) -> None:
    """As in a rolling change of the setting: the first interruption finds where it begins, and
    counts nothing as missed; the second one is closed from it."""
    async with (
        own_server.network() as proxy,
        Pool(proxy.url, node_id="far", timing=FAST) as far,
        Pool(own_server.url, node_id="near", timing=FAST, history=ROOMS) as near,
        Publisher(own_server.url) as publisher,
    ):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice")
        await publisher.broadcast_message("room:7", "0")
        assert await alice.wait_sent(1, 30) == ["0"]
        await asyncio.sleep(0.05)  # epochs of servers that follow each other are of 10 ms
        await near.host("room:7", "bob")
        for lost in ([], ["1"]):
            generations = far.counters.generations
            await proxy.refuse()
            for text in lost:
                await publisher.broadcast_message("room:7", text)
            await proxy.accept()
            await eventually(lambda before=generations: far.counters.generations > before, 30)
            await eventually(lambda: far.ready, 30)
        await publisher.broadcast_message("room:7", "2")
        assert await alice.wait_sent(3, 30) == ["0", "1", "2"]
        assert gaps == []
