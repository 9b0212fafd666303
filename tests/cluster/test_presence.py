"""Presence: who is in a namespace, with users and infos, kept right from the events."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cluster_pool import (
    BackplaneUnavailableError,
    Connection,
    ConnectionClosedError,
    InvalidValueError,
    Limits,
    Member,
    MemberEvent,
    Presence,
    PresenceChanges,
    Timing,
)
from cluster_pool.cluster.public.directory import DirectoryCalls
from cluster_pool.testing import FAST, FakeWebSocket
from tests.clusters import PATIENT, Backend, Pool
from tests.servers import RedisServer
from tests.support import async_test, eventually
from tools.harness.internals import is_whole


async def join(pool: Pool, id: str, user: str | None = None, info: Any = None) -> Connection:
    """A new member of "room"."""
    connection = Connection(id, "room", FakeWebSocket(), user=user, info=info)
    await pool.new_connection(connection)
    return connection


async def listed(sender: DirectoryCalls, namespace: str = "room") -> dict[str, Member]:
    return {one.id: one async for one in sender.members(namespace)}


async def take(changes: AsyncIterator[Any]) -> Any:
    """The next changes or event, waited for."""
    async with asyncio.timeout(20):
        return await anext(changes)


async def until(presence: Presence, ids: set[str]) -> None:
    """Follow the changes until these are the members."""
    async with asyncio.timeout(30):
        while presence.members.keys() != ids:
            await anext(presence)


# -- users and infos ---------------------------------------------------------------------------


@async_test
async def test_members_and_locate_tell_users_and_infos_on_every_node(backend: Backend) -> None:
    """Members that have some; these come with joins, updates and leaves."""
    async with backend.pools(2) as (one, two), backend.publisher() as publisher:
        async with publisher.watching("room") as events:
            alice = await join(one, "a", "42", {"name": 'Älice \u2028 "x"'})
            await join(one, "b", "43")
            await join(two, "c")
            await alice.update_info({"name": "Alice", "typing": True})
            assert await listed(two) == {
                "a": Member("a", "node-1", "42", {"name": "Alice", "typing": True}),
                "b": Member("b", "node-1", "43"),
                "c": Member("c", "node-2"),
            }
            assert await two.locate("room", "a") == (await listed(publisher))["a"]
            await one.remove_connection(alice)
            info = {"name": 'Älice \u2028 "x"'}
            assert [await take(events) for _ in range(5)] == [
                MemberEvent("join", "a", "node-1", "42", info),
                MemberEvent("join", "b", "node-1", "43"),
                MemberEvent("join", "c", "node-2"),
                MemberEvent("update", "a", "node-1", "42", {"name": "Alice", "typing": True}),
                MemberEvent("leave", "a", "node-1", "42", {"name": "Alice", "typing": True}),
            ]
        assert backend.keys_of("profiles") != []
        for id in ("b", "c"):
            pool = one if id == "b" else two
            held = pool.get_connection("room", id)
            assert held is not None
            await pool.remove_connection(held)
        assert backend.keys_of("profiles") == []


@async_test
async def test_members_without_user_and_info_store_nothing_more(backend: Backend) -> None:
    async with backend.pools(1) as (one,):
        await join(one, "a")
        assert backend.keys_of("profiles") == []


@async_test
async def test_a_joined_namespace_has_an_info_of_its_own(backend: Backend) -> None:
    """It goes with the membership; a second join tells another one."""
    async with backend.pools(2) as (one, two):
        alice = await join(one, "a", "42", 1)
        await alice.join("lobby", info=2)
        assert (await listed(two, "lobby"))["a"] == Member("a", "node-1", "42", 2)
        await alice.join("lobby", info=3)
        await alice.update_info([4], namespace="room")
        assert (await listed(two, "lobby"))["a"].info == 3
        assert (await listed(two, "room"))["a"].info == alice.info == [4]
        await alice.leave("lobby")
        await alice.join("lobby")
        assert (await listed(two, "lobby"))["a"].info is None
        with pytest.raises(Exception, match="no member of 'elsewhere'"):
            await alice.update_info(5, namespace="elsewhere")


@async_test
async def test_an_info_belongs_to_the_join_that_succeeds(backend: Backend) -> None:
    """Behind a leave that is under way, and behind a join whose caller gives up."""
    async with backend.pools(2) as (one, two):
        alice = await join(one, "a")
        await alice.join("lobby", info="old")
        leaving = asyncio.create_task(alice.leave("lobby"))
        await asyncio.sleep(0)
        await alice.join("lobby", info="new")
        await leaving
        assert (await listed(two, "lobby"))["a"].info == "new"
        given_up = asyncio.create_task(alice.join("yard", info=1))
        await asyncio.sleep(0)
        second = asyncio.create_task(alice.join("yard", info=2))
        await asyncio.sleep(0)
        given_up.cancel()
        await second
        assert (await listed(two, "yard"))["a"].info == 2


@async_test
async def test_a_takeover_replaces_user_and_info(backend: Backend) -> None:
    """Also by one that has none, and the loser's late update changes nothing."""
    async with backend.pools(2) as (one, two):
        first = await join(one, "a", "42", "first")
        await join(two, "a", "43", "second")
        assert (await listed(one))["a"] == Member("a", "node-2", "43", "second")
        with contextlib.suppress(Exception):
            await first.update_info("late")
        assert (await listed(one))["a"].info == "second"
        await join(one, "a")
        assert (await listed(two))["a"] == Member("a", "node-1")
        assert backend.keys_of("profiles") == []


@pytest.mark.parametrize("info", [float("nan"), {1, 2}, "\ud800", "x" * 1023, object()])
@async_test
async def test_an_info_that_is_no_json_or_too_large_is_refused(info: Any) -> None:
    """At the door, or by the call; the present one stays."""
    backend = Backend(None)
    async with backend.pools(1) as (one,):
        with pytest.raises(InvalidValueError, match="info"):
            await join(one, "a", info=info)
        assert await listed(one) == {}
        alice = await join(one, "a", info="fine")
        with pytest.raises(InvalidValueError, match="info"):
            await alice.update_info(info)
        with pytest.raises(InvalidValueError, match="info"):
            await alice.join("lobby", info=info)
        assert (await listed(one))["a"].info == alice.info == "fine"
        await alice.update_info(None)
        assert (await listed(one))["a"].info is alice.info is None
    with pytest.raises(InvalidValueError, match="info_bytes"):
        Limits(info_bytes=16 * 1024 + 1)


@async_test
async def test_no_info_is_too_deep_for_its_readers(backend: Backend) -> None:
    """Neither one that a member gives, nor one that another program has written in its place."""
    deep = "[" * 800 + "]" * 800
    slow = Timing(lease=60, heartbeat=20)  # else a comparison may repair what the other has written
    async with backend.pools(2, limits=Limits(info_bytes=4096), timing=slow) as (one, two):
        alice = await join(one, "a", "42", [1])
        async with two.presence("room", every=0) as presence:
            with pytest.raises(InvalidValueError, match="more than 32 levels"):
                await alice.update_info(json.loads(deep))
            key = f"{backend.prefix}:{{room}}"
            with backend.sync_client() as client:
                mark = client.hget(f"{key}:members", "a").partition(b":")[2]
                profile = b' {"user":"42","info":%b}' % deep.encode()
                client.hset(f"{key}:profiles", "a", mark + profile)
            event = f'{{"event":"update","id":"a","node":"node-1","user":"42","info":{deep}}}'
            await backend.publish(f"{key}:events", event)
            bare = Member("a", "node-1", "42")
            assert (await take(presence)).updated == (bare,)
            assert await two.locate("room", "a") == (await listed(two))["a"] == bare


@async_test
async def test_events_with_large_infos_are_lost_to_nobody(backend: Backend) -> None:
    """A batch of joins goes in several payloads."""
    async with backend.pools(1, limits=Limits(info_bytes=16 * 1024)) as (one,):
        async with one.watching("room") as events:
            await asyncio.gather(*[join(one, f"{at}", info="x" * 16_000) for at in range(50)])
            seen = [await take(events) for _ in range(50)]
        assert {event.id for event in seen} == {f"{at}" for at in range(50)}
        assert one.statistics()["watch_losses"] == 0


@async_test
async def test_users_and_infos_are_registered_again_when_redis_has_lost_them(
    own_server: RedisServer,
) -> None:
    backend = Backend(own_server)
    async with backend.pools(2) as (one, two):
        alice = await join(one, "a", "42", "before")
        own_server.kill()
        with contextlib.suppress(Exception):
            await alice.update_info("meanwhile", timeout=0.1)
        own_server.start()
        await eventually(lambda: is_whole(one) and is_whole(two), 30)

        async def told() -> bool:
            return await listed(two) == {"a": Member("a", "node-1", "42", "meanwhile")}

        await eventually(told, 30)


@async_test
async def test_an_info_that_was_taken_back_unheard_is_removed(own_server: RedisServer) -> None:
    """Redis did not hear of it, and kept the info; the node registers that there is none."""
    backend = Backend(own_server)
    async with own_server.network() as proxy:
        cut = Pool(proxy.url, node_id="cut", prefix=backend.prefix, timing=FAST)
        async with cut, backend.pools(1) as (two,):
            alice = await join(cut, "a", info="x")
            await proxy.refuse()
            with contextlib.suppress(Exception):
                await alice.update_info(None, timeout=0.3)
            await proxy.accept()

            async def gone() -> bool:
                return await listed(two) == {"a": Member("a", "cut")}

            await eventually(gone, 30)
        assert backend.keys_of("profiles") == []


@pytest.mark.parametrize("damage", ["delete", "type", "garbage"])
@async_test
async def test_a_lost_hash_of_profiles_is_repaired(backend: Backend, damage: str) -> None:
    """As the other keys of a namespace; until then members have no info."""
    async with backend.pools(2) as (one, two):
        await join(one, "a", "42", "x")
        key = f"{backend.prefix}:{{room}}:profiles"
        with backend.sync_client() as client:
            if damage == "garbage":
                client.hset(key, "a", "garbage")
            else:
                client.delete(key)
            if damage == "type":
                client.set(key, "x")
        assert (await listed(two))["a"] == Member("a", "node-1")

        async def told() -> bool:
            return (await listed(two))["a"] == Member("a", "node-1", "42", "x")

        await eventually(told, 30)


# -- presence ----------------------------------------------------------------------------------


@async_test
async def test_presence_has_a_snapshot_and_then_the_changes(backend: Backend) -> None:
    async with backend.pools(2) as (one, two):
        alice = await join(one, "a", "42", "x")
        async with two.presence("room", every=0) as presence:
            assert presence.members == {"a": Member("a", "node-1", "42", "x")}
            await join(two, "b")
            assert await take(presence) == PresenceChanges(joined=(Member("b", "node-2"),))
            await alice.update_info("y")
            new = Member("a", "node-1", "42", "y")
            assert await take(presence) == PresenceChanges(updated=(new,))
            await one.remove_connection(alice)
            assert await take(presence) == PresenceChanges(left=(new,))
            assert presence.members == {"b": Member("b", "node-2")}


@async_test
async def test_presence_tells_apart_what_python_calls_equal() -> None:
    async with Backend(None).pools(1) as (one,):
        alice = await join(one, "a", info={"typing": 0})
        async with one.presence("room", every=0) as presence:
            await alice.update_info({"typing": False})
            (changed,) = (await take(presence)).updated
            assert changed.info["typing"] is presence.members["a"].info["typing"] is False


@async_test
async def test_changes_are_coalesced(backend: Backend) -> None:
    """A storm is a few changes, and a member that came and went in between is in none."""
    async with backend.pools(1) as (one,), backend.publisher() as publisher:
        async with publisher.presence("room", every=0.5) as presence:
            seen: list[PresenceChanges] = []

            async def follow() -> None:
                while True:
                    seen.append(await anext(presence))

            following = asyncio.create_task(follow())
            await join(one, "first")
            await eventually(lambda: len(seen) == 1)
            for _ in range(5):
                held = await join(one, "passes")
                await one.remove_connection(held)
            await asyncio.gather(*[join(one, f"{at}") for at in range(500)])
            await eventually(lambda: len(presence.members) == 501, 20)
            following.cancel()
        assert len(seen) <= 20
        joined = [member.id for changes in seen for member in changes.joined]
        assert len(joined) == len(set(joined)) == 501
        assert not any(changes.left or changes.updated for changes in seen)


@async_test
async def test_presence_is_right_after_any_interleaving_of_reading_and_events(
    backend: Backend,
) -> None:
    """Members come, go and change nodes while many presences begin."""
    async with backend.pools(2) as pools, backend.publisher() as publisher:
        held: dict[str, tuple[Pool, Connection]] = {}
        stop = asyncio.Event()

        async def churn(seed: int) -> None:
            at = seed
            while not stop.is_set():
                at += 7
                id, pool = f"{at % 20}", pools[at % 2]
                if at % 3 and id in held:
                    own, connection = held.pop(id)
                    await own.remove_connection(connection)
                else:
                    with contextlib.suppress(ConnectionClosedError):  # another task's is newer
                        held[id] = (pool, await join(pool, id, info=at))

        async with contextlib.AsyncExitStack() as stack:
            churning = [asyncio.create_task(churn(seed)) for seed in range(3)]
            presences = []
            for _ in range(10):
                presence = await stack.enter_async_context(publisher.presence("room", every=0))
                presences.append(presence)
                await asyncio.sleep(0.03)
            stop.set()
            await asyncio.gather(*churning)
            there = await listed(publisher)
            for presence in presences:
                async with asyncio.timeout(20):
                    while presence.members != there:
                        await anext(presence)


@async_test
async def test_members_are_read_again_after_a_loss(own_server: RedisServer) -> None:
    """The changes say so, and have what is different."""
    backend = Backend(own_server)
    async with backend.pools(2) as (one, two):
        alice = await join(one, "a")
        await join(one, "b")
        async with two.presence("room", every=0) as presence:
            own_server.kill()
            await alice.close()
            own_server.start()
            lost = False
            async with asyncio.timeout(60):
                while presence.members.keys() != {"b"} or not lost:
                    changes = await anext(presence)
                    lost = lost or changes.lost
            await join(one, "c")
            await until(presence, {"b", "c"})


@pytest.mark.parametrize("cause", ["link", "lease"])
@async_test
async def test_a_rejoin_is_no_change(
    own_server: RedisServer, cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node registers its members again: nobody reads them again, and nothing has changed."""
    backend = Backend(own_server)
    async with (
        backend.pools(1) as (two,),
        own_server.network() as proxy,
        Pool(proxy.url, node_id="far", prefix=backend.prefix, timing=FAST) as far,
        two.presence("room", every=0) as there,
        two.watching("room") as events,
    ):
        for at in range(20):
            await join(far, f"{at}", "42", info=at)
        await until(there, {f"{at}" for at in range(20)})
        async with far.presence("room", every=0) as here:
            for presence in (here, there):
                monkeypatch.setattr(presence, "_read", None)  # a reading would raise
            rejoins = far.statistics()["rejoins"]
            if cause == "link":
                await proxy.cut()
            else:
                async with backend.client() as client:
                    leases = f"{backend.prefix}:{{~}}:leases"
                    await client.zrem(leases, far._parts.lease.incarnation)
            await eventually(lambda: far.statistics()["rejoins"] > rejoins and far.ready, 30)
            await take_until(events, "19", 2)  # its join, and that of the rejoin
            await join(two, "next")
            for presence in (here, there):
                assert await take(presence) == PresenceChanges(joined=(Member("next", "node-1"),))


async def take_until(events: AsyncIterator[MemberEvent], id: str, times: int) -> None:
    """Read events until one of an id has come so often."""
    async with asyncio.timeout(30):
        while times:
            times -= (await anext(events)).id == id


@async_test
async def test_a_presence_whose_pool_stops_ends_with_an_error(backend: Backend) -> None:
    async with backend.pools(1) as (one,), one.presence("room") as presence:
        waits = asyncio.create_task(anext(presence))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await one.stop()
        with pytest.raises(Exception, match="stopped"):
            await waits


@pytest.mark.real
@async_test
async def test_an_info_of_a_join_that_fails_is_told_by_no_other_join(
    own_server: RedisServer,
) -> None:
    """It waits for one without an info, whose claim is written meanwhile, and is cancelled."""
    async with (
        own_server.network() as proxy,
        Pool(proxy.url, node_id="far", timing=PATIENT) as far,
        Pool(own_server.url, node_id="near", timing=PATIENT) as near,
    ):
        alice = await join(far, "a")
        proxy.delay = 0.2
        joining = asyncio.create_task(alice.join("yard"))
        await asyncio.sleep(0)
        waits = asyncio.create_task(alice.join("yard", info=1))
        members = far._parts.setup.keys.members("yard")
        await eventually(lambda: ":1" in own_server.command("HLEN", members))
        waits.cancel()
        await joining
        proxy.delay = 0
        assert (await listed(near, "yard"))["a"].info is None


@pytest.mark.real
@async_test
async def test_an_info_that_came_too_late_is_told_later(own_server: RedisServer) -> None:
    """It is one of a thousand members, of which a comparison looks at a few; the link goes on."""
    async with (
        own_server.network() as proxy,
        Pool(proxy.url, node_id="far", timing=FAST) as far,
        Pool(own_server.url, node_id="near", timing=PATIENT) as near,
    ):
        await asyncio.gather(*[far.host("room", f"other {number}") for number in range(1000)])
        alice = await join(far, "a", info="old")
        proxy.hold(downwards=False)
        for info in ("first", "new"):  # what the proxy reads at the moment goes on
            with pytest.raises(BackplaneUnavailableError):
                await alice.update_info(info, timeout=0.1)
        await asyncio.sleep(0.3)
        proxy.heal()

        async def told() -> bool:
            found = await near.locate("room", "a")
            return found is not None and found.info == "new"

        await eventually(told, 20)
