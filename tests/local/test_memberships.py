"""One connection in many namespaces, in a process without a cluster."""

import pytest

from cluster_pool import (
    ClusterPoolError,
    Connection,
    ConnectionClosedError,
    ConnectionsPool,
    IdTakenError,
    InvalidNamespaceError,
    Limits,
    MembershipLimitError,
    NodeDrainingError,
    SendResult,
)
from cluster_pool.local.drain_run import DrainRun
from cluster_pool.testing import FakeWebSocket, fake_cluster
from tests.support import async_test, eventually


async def enter(pool: ConnectionsPool, namespace: str, id: str) -> tuple[Connection, FakeWebSocket]:
    """A new member, and its WebSocket."""
    websocket = FakeWebSocket()
    connection = Connection(id, namespace, websocket)
    await pool.new_connection(connection)
    return connection, websocket


@async_test
async def test_a_connection_is_reached_in_every_namespace_that_it_joined() -> None:
    """Once by each broadcast; it counts as one connection."""
    async with ConnectionsPool() as pool:
        alice, hers = await enter(pool, "app", "alice")
        await alice.join("room", id="al")
        assert alice.namespaces == ("app", "room")
        assert await pool.broadcast_message("room", "all") == 1
        assert await pool.send("room", "al", "you") is SendResult.DELIVERED
        assert await pool.send("room", "alice", "nobody") is SendResult.ABSENT
        assert hers.sent or await hers.wait_sent(2)
        assert await hers.wait_sent(2) == ["all", "you"]
        assert pool.statistics()["connections"] == pool.statistics()["accepted"] == 1
        assert pool.statistics()["namespaces"] == 2


@async_test
async def test_a_leave_ends_one_membership_and_a_close_ends_all() -> None:
    """Each callback is called once, behind the close as well."""
    async with ConnectionsPool() as pool:
        alice, _ = await enter(pool, "app", "alice")
        emptied: list[str] = []
        for room in ("room", "hall"):
            await alice.join(room)
        for _ in range(2):
            await alice.leave("room", on_empty_namespace=lambda: emptied.append("room"))
        assert alice.namespaces == ("app", "hall")
        await alice.close()
        for _ in range(2):
            await alice.leave("hall", on_empty_namespace=lambda: emptied.append("hall"))
        await pool.remove_connection(alice, lambda: emptied.append("app"))
        assert emptied == ["room", "hall", "app"]
        assert pool.statistics()["namespaces"] == pool.statistics()["connections"] == 0
        with pytest.raises(ConnectionClosedError):
            await alice.join("room")


@async_test
async def test_leaving_home_closes_the_connection() -> None:
    """With 1000."""
    async with ConnectionsPool() as pool:
        alice, hers = await enter(pool, "app", "alice")
        await alice.join("room")
        await alice.leave("app")
        assert await hers.wait_closed() == (1000, "")
        assert pool.statistics()["namespaces"] == 0


@async_test
async def test_a_joined_membership_is_lost_alone_and_a_home_with_its_connection() -> None:
    """Both to one that comes later; only the joined one is told by ``left``."""
    async with ConnectionsPool() as pool:
        guest, hers = await enter(pool, "app", "x")
        told: list[tuple[str, str]] = []
        guest.on("left", lambda *left: told.append(left))
        await guest.join("room")
        host, his = await enter(pool, "room", "x")
        await eventually(lambda: told == [("room", "taken over")])
        assert guest.namespaces == ("app",)
        assert hers.closed is None
        await host.join("hall")
        await guest.join("room")
        assert await his.wait_closed() == (4409, "taken over")
        assert pool.statistics()["taken_over"] == 2
        assert not pool.has_namespace("hall")


@async_test
async def test_joins_are_refused_as_newcomers_are() -> None:
    """A taken id, a limit, a drain, another id; joining twice does nothing."""
    pool = ConnectionsPool(limits=Limits(connection_namespaces=2), on_conflict="reject")
    async with pool:
        alice, _ = await enter(pool, "app", "alice")
        bob, _ = await enter(pool, "room", "bob")
        with pytest.raises(IdTakenError):
            await alice.join("room", id="bob")
        with pytest.raises(InvalidNamespaceError):
            await alice.join("~")
        await alice.join("room")
        await alice.join("room")
        with pytest.raises(ClusterPoolError, match="a member of 'room' already"):
            await alice.join("room", id="al")
        with pytest.raises(MembershipLimitError):
            await alice.join("hall")
        pool._drain = object.__new__(DrainRun)
        with pytest.raises(NodeDrainingError):
            await bob.join("hall")
        pool._drain = None
        await bob.join("room2", on_conflict="takeover")


@async_test
async def test_a_pool_has_its_members_join_leave_and_be_removed() -> None:
    """The results are those of a cluster; a removal of a home closes."""
    async with ConnectionsPool(limits=Limits(connection_namespaces=2)) as pool:
        alice, hers = await enter(pool, "app", "alice")
        _, his = await enter(pool, "room", "bob")
        told: list[tuple[str, str]] = []
        alice.on("left", lambda *left: told.append(left))
        assert await pool.join("app", "alice", "room", as_id="al") is SendResult.DELIVERED
        assert await pool.join("app", "alice", "room", as_id="al") is SendResult.DELIVERED
        assert await pool.join("room", "al", "hall") is SendResult.REFUSED
        assert await pool.join("app", "nobody", "room") is SendResult.ABSENT
        assert await pool.leave("app", "nobody", "room") is SendResult.ABSENT
        assert await pool.leave("app", "alice", "room") is SendResult.DELIVERED
        assert await pool.leave("app", "alice", "room") is SendResult.DELIVERED
        await eventually(lambda: told == [("room", "removed")])
        await alice.join("room")
        assert await pool.remove_all("room") == 2
        assert await his.wait_closed() == (1000, "")
        assert (hers.closed, alice.namespaces) == (None, ("app",))
        assert await pool.leave("app", "alice", "app") is SendResult.DELIVERED
        assert await hers.wait_closed() == (1000, "")


@async_test
async def test_the_local_pool_of_a_node_decides_about_no_membership() -> None:
    """The cluster does; the error says so."""
    async with fake_cluster(1) as (one,):
        calls = [
            one.local.join("n", "a", "b"),
            one.local.leave("n", "a", "b"),
            one.local.remove_all("n"),
        ]
        for call in calls:
            with pytest.raises(ClusterPoolError, match="belongs to the ClusterPool"):
                await call


@async_test
async def test_a_connection_whose_client_has_left_is_taken_no_more() -> None:
    """It may leave while another client with its id is asked for a sign of life."""
    async with ConnectionsPool(on_conflict="reject") as pool:
        alice, _ = await enter(pool, "app", "alice")
        newcomer = Connection("alice", "app", FakeWebSocket())

        async def dead(within: float) -> bool:
            await newcomer.close()
            return False

        alice._transport.alive = dead  # type: ignore[method-assign]
        with pytest.raises(ConnectionClosedError):
            await pool.new_connection(newcomer)
        assert pool.statistics()["connections"] == 0
        with pytest.raises(ConnectionClosedError):
            await pool.new_connection(newcomer)


@async_test
async def test_a_join_takes_an_id_over_from_the_same_user_alone() -> None:
    """Unless that is asked for; as in a cluster."""
    pool = ConnectionsPool()
    owners = (("a", "42"), ("b", "42"), ("c", "43"), ("d", None))
    made = [Connection(id, "app", FakeWebSocket(), user=user) for id, user in owners]
    for one in made:
        await pool.new_connection(one)
    owner, tab, other, guest = made
    await owner.join("room", id="seat")
    for stranger in (other, guest):
        with pytest.raises(IdTakenError):
            await stranger.join("room", id="seat")
    await tab.join("room", id="seat")
    assert owner.namespaces == ("app",)
    await guest.join("room", id="seat", on_conflict="takeover")
    assert tab.namespaces == ("app",)
