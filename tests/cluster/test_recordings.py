"""Clusters with a secret, whose messages a stranger records and replays on any channel."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence

import pytest

from cluster_pool import DrainRefusedError, NodeState, NodeUnreachableError, SendResult
from cluster_pool.cluster.unsealing import CROSSED_US
from cluster_pool.core import envelope
from cluster_pool.core.seals import BOUND, GOOD_FOR_US, ROUTED, Seals
from tests.clusters import Backend, Pool, claim_of
from tests.support import async_test, eventually

SECRET = "not known to strangers"

Tape = list[tuple[str, bytes]]


def own_channels(pools: Iterable[Pool]) -> list[str]:
    """The channels of replies and orders to these nodes."""
    return [pool._parts.backplane.identity.own_channel for pool in pools]


def routed_channels(backend: Backend, pools: Iterable[Pool]) -> list[str]:
    """The channels of what is sent to members of these nodes."""
    return [backend.routed_channel("n", pool) for pool in pools]


@contextlib.asynccontextmanager
async def recording(backend: Backend, pools: Sequence[Pool]) -> AsyncIterator[Tape]:
    """All that is published to the namespace and to nodes."""
    tape: Tape = []
    channels = [*own_channels(pools), *routed_channels(backend, pools)]
    async with backend.recording(f"{backend.prefix}:{{n}}", *channels) as heard:

        async def listen() -> None:
            while True:
                tape.append(await heard.get())

        task = asyncio.create_task(listen())
        try:
            yield tape
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def sealed_in(payload: bytes) -> int:
    """The number of sealed items in an envelope."""
    if payload[:2] != envelope.ENVELOPE:
        return 0
    _, start = envelope.read_header(payload)
    items = envelope.read_items(payload[start:])
    kinds = [(item[1] if isinstance(item[1], list) else item)[0] for item in items]
    return sum(kind in (BOUND, ROUTED) for kind in kinds)


def forged(pools: Iterable[Pool]) -> int:
    return sum(pool.statistics()["dropped_forged"] for pool in pools)


async def use(one: Pool, two: Pool, listeners: int) -> None:
    """Send one sealed item of each kind from node-1 to node-2 and its member."""
    alice = await two.host("n", "alice")
    assert await one.send("n", "alice", "1") is SendResult.ROUTED
    assert await one.send("n", "alice", "2", confirm=True) is SendResult.DELIVERED
    assert await one.broadcast_message("n", "3") == listeners
    assert await one.broadcast_message("n", "4", exclude=["x"]) == listeners
    assert await alice.wait_sent(4) == ["1", "2", "3", "4"]
    assert await one.send_then_close("n", "alice", "5", 4000, confirm=True) is SendResult.DELIVERED
    bob, carol = await two.host("n", "bob"), await two.host("n", "carol")
    assert await one.close("n", "bob", 4000, confirm=True) is SendResult.DELIVERED
    await one.close_all("n", 4000)
    for socket in (bob, carol):
        assert await socket.wait_closed() == (4000, "")
    await eventually(lambda: not two.statistics()["connections"])


@async_test
async def test_recordings_do_not_reach_later_members_and_starts(backend: Backend) -> None:
    """A restarted node, an id that moved to another node, and a drained node ignore them."""
    async with backend.pools(secret=SECRET) as (one, two), recording(backend, (one, two)) as tape:
        await use(one, two, 2 if backend.clustered else 1)
        await one.drain_node("node-2", force=True, announce=0)
        await eventually(lambda: two.state is NodeState.DRAINED)
        assert forged((one, two)) == 0
        await eventually(lambda: sum(sealed_in(payload) for _, payload in tape) >= 12)
    async with backend.pools(3, secret=SECRET) as pools:
        ids = ("alice", "bob", "carol")
        sockets = [await pool.host("n", id) for pool, id in zip(pools, ids, strict=True)]
        old = [(channel, payload) for channel, payload in tape if sealed_in(payload)]
        everyone = f"{backend.prefix}:{{n}}"
        routed, nodes = routed_channels(backend, pools), own_channels(pools)
        await asyncio.sleep(0.5 + CROSSED_US / 1e6)  # what is younger may have crossed with a join
        sealed = 0
        for channel, payload in old:
            sealed += sealed_in(payload)
            same = routed if ":start:" in channel else nodes
            for to in [everyone] if channel == everyone else same:
                await backend.publish(to, payload)
        assert sealed >= 12
        await eventually(lambda: forged(pools) == 3 * sealed)
        for channel, payload in old:
            for to in [*nodes, *routed] if channel == everyone else [everyone]:
                await backend.publish(to, payload)
        await pools[0].broadcast_message("n", "end")
        for socket in sockets:
            assert await socket.wait_sent() == ["end"]
            assert socket.closed is None
        assert [pool.state for pool in pools] == [NodeState.ACTIVE] * 3
        await pools[0].drain_node("node-2", force=True, announce=0)


def envelope_of(sender: str, *items: bytes) -> bytes:
    """An envelope as the publishing script makes it; its sender is not checked."""
    return b"".join([b"\xc1\x011 1 1 ", sender.encode(), b" 1\n", *items])


@async_test
async def test_a_message_that_crosses_with_a_claim_is_delivered_if_its_script_names_the_claim(
    backend: Backend,
) -> None:
    """It was sealed before the claim, but the script ran after it and names it as the receiver."""
    async with backend.pools(1, secret=SECRET) as (one,):
        older = claim_of(await one.host("n", "alice"))
        alice = await one.host("n", "alice")
        claim = claim_of(alice)
        guessed, elsewhere = claim._replace(time=claim.time - 1), older._replace(incarnation="x.0")
        seals, channel = Seals(SECRET), backend.routed_channel("n", one)

        async def say(text: str, named: str, counter: int) -> None:
            item = envelope.targeted(True, "n", "alice", text.encode())
            scope = f"{backend.prefix}:{{~}}:node:"
            sealed = seals.seal(ROUTED, scope, text, item, counter)
            addressed = b"\x92" + envelope.pack(named) + sealed
            seals._counter = 0  # of another sender next time
            await backend.publish(channel, envelope_of(text, addressed))

        crossed = claim.time - GOOD_FOR_US // 2
        await say("before", str(claim), claim.time - GOOD_FOR_US - 1)
        await say("elsewhere", str(elsewhere), claim.time)
        await say("guessed", str(guessed), crossed)
        await say("nonsense", f"{claim.start}.", crossed)
        await eventually(lambda: one.statistics()["dropped_forged"] == 4)
        await say("older", str(older), crossed)
        await say("crossed", str(claim), crossed)
        await say("rejoined", str(claim._replace(incarnation=f"{claim.start}.7")), crossed)
        await say("after", str(guessed), claim.time)
        assert await alice.wait_sent(4) == ["older", "crossed", "rejoined", "after"]
        assert one.statistics()["dropped_forged"] == 4


@async_test
async def test_a_broadcast_reaches_only_members_from_before_it_was_sealed(backend: Backend) -> None:
    """A late broadcast, or a late close, does not reach members that joined since."""
    async with backend.pools(1, secret=SECRET) as (one,):
        early = await one.host("n", "early")
        seals, channel = Seals(SECRET), f"{backend.prefix}:{{n}}"
        later = await one.host("n", "later")
        items = (
            envelope.broadcast(True, b"to all"),
            envelope.broadcast(True, b"to others", ["early"]),
            envelope.close_all(4000, ""),
        )
        before = claim_of(later).time - len(items)  # each is sealed a microsecond after the last
        sealed = [seals.seal(BOUND, channel, "sender", item, before) for item in items]
        await backend.publish(channel, envelope_of("sender", *sealed))
        assert await early.wait_closed() == (4000, "")
        assert early.sent == ["to all"]
        await one.broadcast_message("n", "end")
        assert await later.wait_sent() == ["end"]
        assert later.closed is None


@async_test
async def test_a_clock_that_was_set_back_does_not_block_messages(backend: Backend) -> None:
    """Older claims have later times than all counters: new messages are delivered all the same."""
    async with backend.pools(secret=SECRET) as (one, two), backend.client() as client:
        alice = await two.host("n", "alice")
        (membership,) = alice.connection._memberships  # type: ignore[attr-defined]
        claim = membership.claim
        ahead = claim._replace(time=claim.time + 3600 * 1_000_000)
        members = f"{backend.prefix}:{{n}}:members"
        await client.hset(members, "alice", str(ahead))
        membership.claim, two._parts.ownership.newest = ahead, ahead.time
        assert await one.send("n", "alice", "1", confirm=True) is SendResult.DELIVERED
        assert await one.broadcast_message("n", "2") == 1
        assert await one.send("n", "alice", "3", confirm=True) is SendResult.DELIVERED
        assert await alice.wait_sent(3) == ["1", "2", "3"]
        await client.hset(members, "alice", str(claim))
        membership.claim = claim


@async_test
async def test_an_order_is_for_one_start_of_a_node(backend: Backend) -> None:
    """An order to a start that has ended fails as unreachable."""
    publisher = backend.publisher(secret=SECRET)
    async with backend.pools(secret=SECRET) as (one, two), publisher:
        await publisher.drain_node("node-2", force=True, announce=0)
        await publisher.activate("node-2")
        with pytest.raises(DrainRefusedError):
            await one.resume_drain("node-2")
        with pytest.raises(NodeUnreachableError, match="nobody listens"):
            await publisher.drain_node("node-3", force=True)
        assert forged((one, two)) == 0


@async_test
async def test_own_messages_are_never_taken_for_recordings(backend: Backend) -> None:
    """Ids move between nodes faster than clients move them, under traffic."""
    async with backend.pools(3, secret=SECRET) as pools:
        ids, moving = "abcdefghij", True
        for number, one in enumerate(pools):
            await one.host("n", f"stays {number}")

        async def move(id: str) -> None:
            for at in range(12):
                await pools[(at + at // 2) % 3].host("n", id, timeout=20)

        async def talk(one: Pool) -> list[SendResult]:
            results = []
            while moving:
                sends = [one.send("n", id, "x", confirm=id > "f", timeout=20) for id in ids]
                results += await asyncio.gather(*sends)
                await one.broadcast_message("n", "y", timeout=20)
            return results

        talking = [asyncio.create_task(talk(one)) for one in pools]
        await asyncio.gather(*[move(id) for id in ids])
        moving = False
        results = [result for results in await asyncio.gather(*talking) for result in results]
        assert SendResult.TIMED_OUT not in results
        assert forged(pools) == 0
