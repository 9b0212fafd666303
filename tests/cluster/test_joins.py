"""One connection in many namespaces: joins and leaves, and what each membership keeps or loses."""

import asyncio

import pytest

from cluster_pool import (
    ClusterPoolError,
    Connection,
    ConnectionClosedError,
    IdTakenError,
    InvalidNamespaceError,
    Limits,
    Member,
    MembershipLimitError,
    NodeDrainingError,
    SendResult,
)
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend, Pool, abandon, connection_of, vanish
from tests.support import async_test, eventually


async def ids(pool: Pool, namespace: str) -> set[str]:
    """The members of a namespace, as the registry has them; its count agrees."""
    found = {member.id async for member in pool.members(namespace)}
    assert await pool.count(namespace) == len(found)
    return found


@async_test
async def test_a_joined_namespace_reaches_the_connection(backend: Backend) -> None:
    """Broadcasts there, also raw ones, and sends to its id there; from both nodes."""
    async with backend.pools() as (one, two):
        alice, bob = await one.host("app", "alice"), await two.host("app", "bob")
        connection = connection_of(alice)
        assert connection.namespaces == ("app",)
        await connection.join("room")
        await connection_of(bob).join("room", id="robert")
        assert connection.namespaces == ("app", "room")
        assert await ids(one, "room") == {"alice", "robert"}
        assert await two.locate("room", "alice") == Member("alice", "node-1")
        assert await two.broadcast_message("room", "all", exclude=["robert"]) == 2
        assert await two.send("room", "alice", "hi", confirm=True) is SendResult.DELIVERED
        assert await one.send("room", "robert", "you", confirm=True) is SendResult.DELIVERED
        assert await one.send("room", "bob", "nobody") is SendResult.ABSENT
        await backend.publish(f"{backend.prefix}:{{room}}", "raw")
        assert await alice.wait_sent(3) == ["all", "hi", "raw"]
        assert await bob.wait_sent(2) == ["you", "raw"]


@async_test
async def test_leaving_ends_one_membership(backend: Backend) -> None:
    """The connection stays open and at home; the last one's callback is called, and no other's."""
    async with backend.pools() as (one, two):
        alice, bob = await one.host("app", "alice"), await two.host("app", "bob")
        emptied: list[str] = []
        for member in (alice, bob):
            await connection_of(member).join("room")
            await connection_of(member).join("hall")
        for member, name in ((alice, "alice"), (bob, "bob")):
            left = connection_of(member)
            await left.leave("room", on_empty_namespace=lambda name=name: emptied.append(name))
            await left.leave("room", on_empty_namespace=lambda: emptied.append("again"))
            assert left.namespaces == ("app", "hall")
        assert emptied == ["bob"]
        assert await ids(one, "room") == set()
        await one.broadcast_message("room", "nobody")
        await one.broadcast_message("hall", "both")
        for member in (alice, bob):
            assert await member.wait_sent() == ["both"]
            assert member.closed is None
        assert await ids(one, "app") == {"alice", "bob"}


@async_test
async def test_a_connection_that_closes_leaves_all_its_namespaces(backend: Backend) -> None:
    """A leave behind the close still waits, and calls the callback, once."""
    async with backend.pools() as (one, two):
        alice, bob = await one.host("app", "alice"), await two.host("app", "bob")
        rooms = [f"room:{number}" for number in range(5)]
        for room in rooms:
            await connection_of(alice).join(room)
        await connection_of(bob).join(rooms[0])
        emptied: list[str] = []
        await connection_of(alice).close()
        assert connection_of(alice).namespaces == ()
        for room in (*rooms, *rooms):
            await connection_of(alice).leave(
                room, on_empty_namespace=lambda room=room: emptied.append(room)
            )
        assert emptied == rooms[1:]
        assert await two.namespaces() == ["app", "room:0"]
        assert await ids(two, "room:0") == {"bob"}
        with pytest.raises(ConnectionClosedError):
            await connection_of(alice).join("room:0")


@async_test
async def test_leaving_home_closes_the_connection(backend: Backend) -> None:
    """With 1000; everything else ends with it, and the callback is that of the home."""
    async with backend.pools(1) as (one,):
        alice = await one.host("app", "alice")
        await connection_of(alice).join("room")
        emptied: list[str] = []
        await connection_of(alice).leave("app", on_empty_namespace=lambda: emptied.append("app"))
        assert emptied == ["app"]
        assert await alice.wait_closed() == (1000, "")
        await eventually(lambda: not one._parts.table.memberships())
        assert await one.namespaces() == []


@async_test
async def test_a_removed_connection_has_left_everything_and_stays_open(backend: Backend) -> None:
    """``remove_connection`` ends all memberships; its callback is about the home."""
    async with backend.pools(1) as (one,):
        alice = await one.host("app", "alice")
        await connection_of(alice).join("room")
        emptied: list[str] = []
        await one.remove_connection(connection_of(alice), lambda: emptied.append("app"))
        assert emptied == ["app"]
        assert one._parts.table.memberships() == []
        assert await one.namespaces() == []
        assert alice.closed is None
        with pytest.raises(ClusterPoolError, match="is no member of a pool"):
            await connection_of(alice).join("room")
        await one.new_connection(connection_of(alice))
        await connection_of(alice).join("room")
        assert await ids(one, "room") == {"alice"}


@async_test
async def test_a_joined_membership_that_is_taken_over_is_lost_alone(backend: Backend) -> None:
    """Its connection is told and stays; one that leaves is not told."""
    async with backend.pools() as (one, two):
        told: list[tuple[str, str]] = []
        alice, other = await one.host("app", "alice"), await two.host("app", "other")
        connection_of(alice).on("left", lambda *left: told.append(left))

        @connection_of(alice).on("left")
        async def later(namespace: str, cause: str) -> None:
            await asyncio.sleep(0)
            told.append((namespace, cause))

        for room in ("room", "hall"):
            await connection_of(alice).join(room)
        await connection_of(alice).leave("hall")
        await connection_of(other).join("room", id="alice")
        await eventually(lambda: len(told) == 2)
        assert told == [("room", "taken over")] * 2
        assert alice.closed is None
        assert connection_of(alice).namespaces == ("app",)
        assert await two.locate("room", "alice") == Member("alice", "node-2")
        assert await one.send("room", "alice", "hi", confirm=True) is SendResult.DELIVERED
        assert await other.wait_sent() == ["hi"]
        assert await two.send("app", "alice", "still", confirm=True) is SendResult.DELIVERED
        assert await alice.wait_sent() == ["still"]
        assert one.statistics()["taken_over"] == 1


@async_test
async def test_losing_home_closes_the_connection_and_leaves_the_rest(backend: Backend) -> None:
    """With 4409, as it has always been."""
    async with backend.pools() as (one, two):
        alice = await one.host("app", "alice")
        await connection_of(alice).join("room")
        await two.host("app", "alice")
        assert await alice.wait_closed() == (4409, "taken over")
        await eventually(lambda: not one._parts.table.memberships())
        assert await ids(two, "room") == set()
        assert await ids(two, "app") == {"alice"}


@async_test
async def test_a_taken_id_is_refused_under_reject(backend: Backend) -> None:
    """The connection that asked stays where it was, and may join under another id."""
    async with backend.pools() as (one, two):
        alice, other = await one.host("app", "alice"), await two.host("app", "other")
        await connection_of(alice).join("room")
        with pytest.raises(IdTakenError):
            await connection_of(other).join("room", id="alice", on_conflict="reject", timeout=0.5)
        assert connection_of(other).namespaces == ("app",)
        await connection_of(other).join("room", on_conflict="reject")
        assert await ids(one, "room") == {"alice", "other"}


@async_test
async def test_a_home_and_a_joined_membership_compete_for_one_id(backend: Backend) -> None:
    """Whichever comes later has it; each loses in its own way."""
    async with backend.pools() as (one, two):
        guest, host = await one.host("app", "x"), await two.host("room", "x")
        await connection_of(guest).join("room")
        assert await host.wait_closed() == (4409, "taken over")
        again = await two.host("room", "x")
        await eventually(lambda: connection_of(guest).namespaces == ("app",))
        assert guest.closed is None
        assert again.closed is None
        assert await ids(one, "room") == {"x"}


@async_test
async def test_joining_twice_does_nothing(backend: Backend) -> None:
    """Also at once, also home; under another id it is an error. So does leaving another's."""
    async with backend.pools(1) as (one,):
        alice = connection_of(await one.host("app", "alice"))
        await asyncio.gather(*[alice.join("room") for _ in range(5)])
        await alice.join("room", id="alice")
        await alice.join("app")
        assert alice.namespaces == ("app", "room")
        for namespace in ("app", "room"):
            with pytest.raises(ClusterPoolError, match=f"a member of '{namespace}' already"):
                await alice.join(namespace, id="bob")
        await alice.leave("elsewhere", on_empty_namespace=lambda: pytest.fail("called"))
        assert one.statistics()["accepted"] == 1
        assert await ids(one, "room") == {"alice"}


@async_test
async def test_joins_and_leaves_happen_in_the_order_of_the_calls(backend: Backend) -> None:
    """A leave during a join ends it; a join during a leave begins anew."""
    async with backend.pools(1) as (one,):
        alice = connection_of(await one.host("app", "alice"))
        for last in ("leave", "join"):
            calls = [alice.join("room"), alice.leave("room"), alice.join("room")]
            if last == "leave":
                calls.append(alice.leave("room"))
            tasks = []
            for call in calls:
                tasks.append(asyncio.create_task(call))
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)
            assert ("room" in alice.namespaces) == (last == "join")
            assert await ids(one, "room") == ({"alice"} if last == "join" else set())


@async_test
async def test_a_connection_joins_as_many_namespaces_as_the_limit_allows(
    backend: Backend,
) -> None:
    """Its home counts; joins that are under way count, too; a leave makes room."""
    async with backend.pools(1, limits=Limits(connection_namespaces=3)) as (one,):
        alice = connection_of(await one.host("app", "alice"))
        joins = [alice.join(f"room:{number}") for number in range(3)]
        *_, refused = await asyncio.gather(*joins, return_exceptions=True)
        assert isinstance(refused, MembershipLimitError)
        assert (refused.limit, refused.allowed) == ("connection_namespaces", 3)
        assert alice.namespaces == ("app", "room:0", "room:1")
        await alice.leave("room:0")
        await alice.join("room:2")


@async_test
async def test_a_connection_that_is_no_member_joins_nothing() -> None:
    """Leaving does nothing then. Names that are not allowed are refused."""
    alice = Connection("alice", "app", FakeWebSocket())
    assert alice.namespaces == ()
    with pytest.raises(ClusterPoolError, match="is no member of a pool"):
        await alice.join("room")
    await alice.leave("room")
    async with Backend(None).pools(1) as (one,):
        await one.new_connection(alice)
        for call in (alice.join, alice.leave):
            with pytest.raises(InvalidNamespaceError):
                await call("a{b")
        assert alice.namespaces == ("app",)


@async_test
async def test_a_draining_node_takes_no_joins(backend: Backend) -> None:
    """Joined namespaces stay until the connection is closed, which the drain counts once."""
    async with backend.pools() as (one, two):
        await two.host("app", "bob")
        alice = await one.host("app", "alice")
        for room in ("room", "hall"):
            await connection_of(alice).join(room)
        assert one.statistics()["connections"] == 1
        drain = asyncio.create_task(one.drain_connections(0.5, "bye"))
        await eventually(lambda: one.state.value == "draining")
        with pytest.raises(NodeDrainingError):
            await connection_of(alice).join("more")
        await connection_of(alice).join("room")
        report = await drain
        assert report.closed == 1
        assert alice.sent == ["bye"]
        assert await two.namespaces() == ["app"]


@async_test
async def test_joined_memberships_are_registered_again_after_a_flushall(
    backend: Backend,
) -> None:
    """The node rejoins; every membership is registered, and each callback is still exact."""
    async with backend.pools() as (one, two):
        alice, bob = await one.host("app", "alice"), await two.host("app", "bob")
        for member in (alice, bob):
            await connection_of(member).join("room")
        async with backend.client() as client:
            for key in list(backend.keys()):
                await client.delete(key)
        await eventually(lambda: one.counters.rejoins and two.counters.rejoins, 20)
        await eventually(lambda: one.ready and two.ready, 20)
        assert await ids(one, "room") == await ids(one, "app") == {"alice", "bob"}
        emptied: list[str] = []
        for member in (alice, bob):
            connection = connection_of(member)
            await connection.leave(
                "room", on_empty_namespace=lambda one=connection: emptied.append(one.id)
            )
        assert emptied == ["bob"]


@async_test
async def test_the_members_of_a_vanished_node_are_gone_from_every_namespace(
    backend: Backend,
) -> None:
    """They are reaped where they were at home and where they had joined."""
    async with backend.pools(1) as (one,):
        emptied: list[str] = []
        one.on("empty", emptied.append)
        lost = Pool(backend.redis(), node_id="lost", prefix=backend.prefix, timing=one.timing)
        await lost.start()
        alice = await lost.host("app", "alice")
        await connection_of(alice).join("room")
        await vanish(lost)
        await eventually(lambda: sorted(emptied) == ["app", "room"], 20)
        assert await one.namespaces() == []
        await abandon(lost)


@async_test
async def test_a_join_takes_an_id_over_from_the_same_user_alone(backend: Backend) -> None:
    """Neither from another user nor from a guest, unless that is asked for; nor does a guest."""
    async with backend.pools() as (one, two):
        owner = connection_of(await one.host("app", "a", user='4"2\\'))
        tab = connection_of(await two.host("app", "b", user='4"2\\'))
        other = connection_of(await two.host("app", "c", user='4"2'))
        guest = connection_of(await two.host("app", "d"))
        second = connection_of(await one.host("app", "e"))
        await owner.join("room", id="seat", info={"user": "not read"})
        for stranger in (other, guest):
            with pytest.raises(IdTakenError):
                await stranger.join("room", id="seat")
        assert (await two.locate("room", "seat")).node == "node-1"  # type: ignore[union-attr]
        await tab.join("room", id="seat")
        await eventually(lambda: owner.namespaces == ("app",))
        await guest.join("hall", id="seat")
        with pytest.raises(IdTakenError):
            await tab.join("hall", id="seat")
        await second.join("hall", id="seat")
        await eventually(lambda: guest.namespaces == ("app",))
        await other.join("room", id="seat", on_conflict="takeover")
        await eventually(lambda: tab.namespaces == ("app",))


@async_test
async def test_an_order_from_elsewhere_takes_over_what_it_says(backend: Backend) -> None:
    """A publisher is the application's own: it may ask for a takeover."""
    async with backend.pools() as (one, two), backend.publisher() as publisher:
        owner = connection_of(await one.host("app", "a", user="42"))
        await two.host("app", "b", user="43")
        await owner.join("room", id="seat")
        refused = await publisher.join("app", "b", "room", as_id="seat")
        assert refused is SendResult.REFUSED
        assert owner.namespaces == ("app", "room")
        told = await publisher.join("app", "b", "room", as_id="seat", on_conflict="takeover")
        assert told is SendResult.DELIVERED
        await eventually(lambda: owner.namespaces == ("app",))
