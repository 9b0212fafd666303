"""Watching joins and leaves: no loss is silent, and a list kept from the events is right."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from cluster_pool import BackplaneUnavailableError, Limits, MemberEvent, Timing
from cluster_pool.cluster import watchers
from cluster_pool.cluster.public.directory import DirectoryCalls
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.testing import FAST
from tests.clusters import Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.internals import is_whole

LOST = MemberEvent("lost", "", "")


async def take(events: AsyncIterator[MemberEvent], count: int) -> list[MemberEvent]:
    """The next events, waited for."""
    async with asyncio.timeout(20):
        return [await anext(events) for _ in range(count)]


async def keep(sender: DirectoryCalls, namespace: str, members: dict[str, str]) -> None:
    """Keep a list of members, as docs/embedding.md does."""

    async def read() -> None:
        while True:
            with contextlib.suppress(BackplaneUnavailableError):
                fresh = {one.id: one.node async for one in sender.members(namespace)}
                members.clear()
                members.update(fresh)
                return
            await asyncio.sleep(0.1)

    async with sender.watching(namespace) as events:
        await read()
        async for event in events:
            if event.event == "join":
                members[event.id] = event.node
            elif event.event == "leave":
                members.pop(event.id, None)
            else:
                await read()


@async_test
async def test_events_have_no_message_limit(backend: Backend) -> None:
    """A batch of joins with the longest ids is larger than a message may be."""
    ids = [f"{at:03}" + '"' * 253 for at in range(200)]
    async with backend.pools(1, limits=Limits(message_bytes=1024)) as (one,):
        async with one.watching("n") as events:
            await asyncio.gather(*[one.host("n", id) for id in ids])
            seen = await take(events, 200)
        assert sorted(event.id for event in seen) == ids
        counts = one.statistics()
        assert (counts["dropped_oversize"], counts["watch_losses"]) == (0, 0)


@async_test
async def test_a_watcher_is_told_of_events_missed_while_cut_off(own_server: RedisServer) -> None:
    """Once, before later events; and only if an event was missed."""
    async with (
        Backend(own_server).pools(1) as (one,),
        own_server.network() as proxy,
        Pool(proxy.url, node_id="far", timing=FAST) as far,
        far.watching("n") as events,
        far.watching("empty") as others,
    ):
        await one.host("n", "first")
        assert await take(events, 1) == [MemberEvent("join", "first", "node-1")]
        for missed, told in ((["second", "third"], [LOST]), ([], [])):
            await proxy.refuse()
            await eventually(lambda: not far.ready)
            for id in missed:
                await one.host("n", id)
            await proxy.accept()
            await eventually(lambda: is_whole(far))
            id = f"after {len(missed)}"
            await one.host("n", id)
            seen = await take(events, len(told) + 1)
            assert seen == [*told, MemberEvent("join", id, "node-1")]
        assert await take(others, 1) == [LOST], "who joined and left again, nobody knows"
        assert far.statistics()["watch_losses"] == 2


@async_test
async def test_a_hole_and_a_lost_counter_are_reported(own_server: RedisServer) -> None:
    """Though the subscription was never cut; an empty namespace causes neither."""
    async with Backend(own_server).pools(1) as (one,), one.watching("n") as events:
        alice = await one.host("n", "alice")
        await one.remove_connection(alice.connection)
        await one.host("n", "bob")
        own_server.command("HINCRBY", "cluster_pool:{n}:owners", "events#", "1")
        await one.host("n", "carol")
        seen = await take(events, 5)
        assert [event.event for event in seen] == ["join", "leave", "join", "lost", "join"]
        own_server.command("FLUSHALL")
        seen = await take(events, 3)
        assert seen[0] == LOST
        assert {event.id for event in seen[1:]} == {"bob", "carol"}


@async_test
async def test_a_slow_reader_loses_the_oldest_events_and_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One "lost" takes their place, however many there were; faster readers get all of them."""
    monkeypatch.setattr(watchers, "QUEUE", 10)
    async with Backend(None).pools(1) as (one,):
        async with one.watching("n") as slow, one.watching("n") as fast:
            for at in range(25):
                await one.host("n", f"{at}")
                assert await take(fast, 1) == [MemberEvent("join", f"{at}", "node-1")]
            seen = await take(slow, 11)
            assert [event.id for event in seen] == ["", *[f"{at}" for at in range(15, 25)]]
            assert seen[0] == LOST
            await one.host("n", "more")
            assert (await take(slow, 1))[0].id == "more"
        assert one.statistics()["watch_losses"] == 1


@async_test
async def test_a_node_without_a_lease_for_a_while_repeats_its_joins(
    own_server: RedisServer,
) -> None:
    """Readers of the members missed them meanwhile, although no leave was published."""
    timing = Timing(timeout=2, lease=3, heartbeat=1, probe=0.5, linger=0.2)
    async with (
        own_server.network() as proxy,
        Backend(own_server).publisher() as publisher,
        Pool(proxy.url, node_id="far", timing=timing) as far,
    ):
        await far.host("n", "alice")
        async with publisher.watching("n") as events:
            await proxy.refuse()
            await eventually(lambda: _none_of(publisher), 20)
            await proxy.accept()
            assert await take(events, 1) == [MemberEvent("join", "alice", "far")]
        assert await publisher.count("n") == 1


async def _none_of(sender: DirectoryCalls) -> bool:
    return not [member async for member in sender.members("n")]


@async_test
async def test_a_reaped_member_of_an_unknown_node_leaves(own_server: RedisServer) -> None:
    """The event has no node id."""
    async with Backend(own_server).pools(1) as (one,), one.watching("n") as events:
        await one.host("n", "alice")
        own_server.command("HSET", "cluster_pool:{n}:members", "ghost", "gone.3:1795412345678901:z")
        own_server.command("HSET", "cluster_pool:{n}:owners", "gone.3", "1", "gone.3#", "345678901")
        assert (await take(events, 2))[1] == MemberEvent("leave", "ghost", "")


@async_test
async def test_a_list_kept_as_documented_is_right(own_server: RedisServer) -> None:
    """Under joins, leaves and takeovers from two nodes, while the reader's links are cut."""
    backend = Backend(own_server)
    members: dict[str, str] = {}
    async with (
        backend.pools() as pools,
        own_server.network() as proxy,
        Pool(proxy.url, node_id="far", timing=FAST) as far,
    ):
        keeping = asyncio.create_task(keep(far, "n", members))
        for turn in range(60):
            if turn % 10 == 3:
                await proxy.cut()
            if turn % 20 == 15:
                await proxy.refuse()
            if turn % 20 == 18:
                await proxy.accept()
            pool = pools[turn % 2]
            await asyncio.gather(*[pool.host("n", f"{at % 70}") for at in range(turn, turn + 9)])
            leaving = pool._parts.table.connections()[: turn % 3]
            await asyncio.gather(*[pool.remove_connection(one) for one in leaving])

        async def right() -> bool:
            return members == {one.id: one.node async for one in pools[0].members("n")}

        await eventually(right, 20)
        assert len(members) > 5
        assert far.statistics()["watch_losses"] > 0
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


class List:
    """A reader that keeps the ids of events; "" stands for a loss."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def put(self, event: MemberEvent) -> None:
        self.read.append(event.id)

    def lose(self) -> None:
        self.read.append("")

    def stop(self) -> None:
        raise AssertionError


GOOD = b'{"event":"join","id":"%s","node":"n"}'
NUMBERED = b'{"event":"join","id":"%s","node":"n","n":%d,"epoch":"1"}'


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        ([GOOD % b"a", b"[" * 9999, b"{}", GOOD % b"b"], ["a", "b"]),
        ([NUMBERED % (b"a", 1), b"{", b"{}", NUMBERED % (b"b", 4)], ["a", "", "", "b"]),
        ([b'{"event":3,"id":"a","node":"n","n":1,"epoch":"1"}', b"\xff"], ["", ""]),
        ([NUMBERED % (b"a", 1), b'{"id":4,"n":"x"}', b'{"n":'], ["a", "", ""]),
        ([b'{"event":"later","id":"a","node":"n","n":1,"epoch":"1"}', b"x"], ["", ""]),
    ],
)
def test_a_line_that_is_no_event_is_lost_alone(lines: list[bytes], read: list[str]) -> None:
    """Readers are told, if the payload has numbers, and have the others; each line counts."""
    readers, one, two = watchers.Watchers(), List(), List()
    readers.add("c", one)
    readers.add("c", two)
    with pytest.raises(BrokenEnvelopeError) as broken:
        readers.heard("c", b"\n".join(lines))
    assert one.read == two.read == read
    assert broken.value.count == 2


@async_test
async def test_a_numbered_line_that_nobody_can_read_is_reported(backend: Backend) -> None:
    """A watcher gets "lost" and a presence reads again; what follows in order is no second loss."""
    async with backend.pools(1) as (one,), backend.client() as client:
        await one.host("n", "alice")
        events, space = f"{backend.prefix}:{{n}}:events", f"{backend.prefix}:{{n}}"
        async with one.watching("n") as seen, one.presence("n", every=0) as presence:
            number = await client.hincrby(f"{space}:owners", "events#", 2)
            epoch = (await client.hget(f"{space}:owners", "epoch#")).decode()
            lines = [
                f'{{"event":"join","id":7,"node":"node-1","n":{number - 1},"epoch":"{epoch}"}}',
                f'"event":"join","n":{number},"epoch":"{epoch}"}}',
            ]
            await backend.publish(events, "\n".join(lines))
            assert await take(seen, 1) == [LOST]
            async with asyncio.timeout(20):
                assert (await anext(presence)).lost
            await backend.publish(events, "from another program")
            await one.host("n", "bob")
            assert await take(seen, 1) == [MemberEvent("join", "bob", "node-1")]
            async with asyncio.timeout(20):
                changes = await anext(presence)
            assert not changes.lost
            assert [member.id for member in changes.joined] == ["bob"]
        assert one.statistics()["dropped_garbage"] == 3
        assert one.statistics()["watch_losses"] == 2


@async_test
async def test_a_number_that_nobody_can_read_is_reported(backend: Backend) -> None:
    """At once, though no event follows."""
    async with backend.pools(1) as (one,):
        await one.host("n", "alice")
        async with one.watching("n") as seen:
            line = '{"event":"leave","id":"alice","node":"node-1","n":"many","epoch":"'
            await backend.publish(f"{backend.prefix}:{{n}}:events", line)
            assert await take(seen, 1) == [LOST]
