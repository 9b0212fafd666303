"""Messages to members of a node that was cut off are read from the history."""

import asyncio
from typing import Any

import pytest

from cluster_pool import History, Limits, SendResult
from tests.cluster.gaps import SECRET, Traffic, far_node, gaps_of, hold_up, numbers_in, recovery_in
from tests.servers import RedisServer
from tests.support import async_test, eventually

pytestmark = pytest.mark.real


class Mixed(Traffic):
    """Each second message is targeted at alice, the others are for all."""

    async def send(self, name: str, number: int) -> Any:
        if number % 2:
            return await self._sender.send(name, "alice", str(number))
        return await self._sender.broadcast_message(name, str(number))


@pytest.mark.parametrize("rooms", [1, 30])
@pytest.mark.parametrize("secret", [None, SECRET])
@async_test
async def test_interruptions_lose_nothing_that_is_targeted(
    own_server: RedisServer, rooms: int, secret: str | None
) -> None:
    """Between broadcasts, with cuts under traffic: each once, in order, and no gap is told."""
    names = [f"room:{number}" for number in range(rooms)]
    async with far_node(own_server, secret=secret) as (proxy, far, publisher):
        gaps = gaps_of(far)
        sockets = [await far.host(name, "alice", user="42") for name in names]
        sent = await Mixed(publisher, names).through_cuts(proxy, far)
        await eventually(lambda: all(len(one.sent) >= sent for one in sockets), 60)
        for socket in sockets:
            assert numbers_in(socket) == list(range(sent))
        assert far.counters.recovered > 0
        await asyncio.sleep(1.1)  # a gap is told once a second
        assert gaps == []
        assert far.counters.dropped_forged == 0


@async_test
async def test_only_what_was_not_given_is_given(own_server: RedisServer) -> None:
    """Neither what came before the cut without any broadcast, nor what is for others."""
    async with far_node(own_server) as (proxy, far, publisher):
        gaps = gaps_of(far)
        alice = await far.host("room:7", "alice", user="42")
        bob = await far.host("room:7", "bob")
        for number in range(20):
            await publisher.send("room:7", "alice", str(number))
        await alice.wait_sent(20, 30)
        await proxy.refuse()
        await publisher.send("room:7", "alice", "20")
        await publisher.send("room:7", "bob", "lost")
        await publisher.broadcast_message("room:7", "21")
        await publisher.send("room:7", "alice", "22")
        await proxy.accept()
        await alice.wait_sent(23, 30)
        assert numbers_in(alice) == list(range(23))
        assert await bob.wait_sent(1, 30) == ["21"]
        await eventually(lambda: gaps, 20)
        assert [(sum(gap.namespaces.values()), gap.exact) for gap in gaps] == [(1, True)]


@async_test
async def test_messages_to_members_of_a_node_that_is_cut_off_are_parked(
    own_server: RedisServer,
) -> None:
    """Its channel has no subscriber: they come when it listens again."""
    async with far_node(own_server) as (proxy, far, publisher):
        alice = await far.host("room:7", "alice", user="42")
        await far.host("lobby", "alice", user="42")
        await proxy.refuse()
        await eventually(lambda: not far.ready, 30)
        for number in range(3):
            answer = await publisher.send("room:7", "alice", str(number))
            assert answer is SendResult.PARKED
        assert await publisher.send("lobby", "alice", "lost") is SendResult.UNREACHABLE
        await proxy.accept()
        assert await alice.wait_sent(3, 30) == ["0", "1", "2"]


@async_test
async def test_live_messages_wait_for_the_past(own_server: RedisServer) -> None:
    """Also if it does not fit: then it is read as well. Other members wait for nothing."""
    limits = Limits(inbox_bytes=4096, message_bytes=1024)
    async with far_node(own_server, limits=limits) as (proxy, far, publisher):
        alice = await far.host("room:7", "alice", user="42")
        other = await far.host("lobby", "carol", user="43")
        recovery = recovery_in(far)
        asked, reading = hold_up(recovery)
        await publisher.send("room:7", "alice", "0")
        await alice.wait_sent(1, 30)
        await proxy.refuse()
        await publisher.broadcast_message("room:7", "1")
        await publisher.send("room:7", "alice", "2")
        await proxy.accept()
        await asyncio.wait_for(asked.wait(), 30)
        for number in range(3, 103):
            await publisher.send("room:7", "alice", str(number))
        await publisher.send("lobby", "carol", "0")
        assert await other.wait_sent(1, 30) == ["0"]
        assert numbers_in(alice) == [0]
        reading.set()
        await alice.wait_sent(103, 30)
        assert numbers_in(alice) == list(range(103))


@async_test
async def test_newcomers_get_what_was_sent_to_their_id_from_their_claim_on(
    own_server: RedisServer,
) -> None:
    """One that takes an id over while the past is read gets what the former one has missed. The gap
    has these all the same: nobody knows whose they were."""
    rules = {"room:*": History(replay_targeted_without_user=True)}
    async with far_node(own_server, history=rules) as (proxy, far, publisher):
        gaps = gaps_of(far)
        first = await far.host("room:7", "alice")
        asked, reading = hold_up(recovery_in(far))
        await publisher.send("room:7", "alice", "0")
        await first.wait_sent(1, 30)
        await proxy.refuse()
        for number in (1, 2, 3):
            await publisher.send("room:7", "alice", str(number))
        await proxy.accept()
        await asyncio.wait_for(asked.wait(), 30)
        second = await far.host("room:7", "alice", on_conflict="takeover")
        reading.set()
        await publisher.send("room:7", "alice", "4")
        await eventually(lambda: second.sent[-1:] == ["4"], 30)
        assert numbers_in(second)[-4:] == [1, 2, 3, 4]
        assert sorted({*numbers_in(first), *numbers_in(second)}) == list(range(5))
        await eventually(lambda: gaps, 20)
        assert [sum(gap.namespaces.values()) for gap in gaps] == [3]
