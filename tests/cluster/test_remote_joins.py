"""Joins and leaves that others order: executed by the owner's node, which answers."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from cluster_pool import ClusterPool, Connection, InvalidValueError, Limits, NodeState, SendResult
from cluster_pool.cluster import remote_joins
from cluster_pool.testing import FAST, FakeWebSocket
from tests.cluster.test_joins import ids
from tests.clusters import Backend, connection_of
from tests.support import async_test, eventually

DELIVERED, REFUSED, ABSENT = SendResult.DELIVERED, SendResult.REFUSED, SendResult.ABSENT


@async_test
async def test_a_join_from_elsewhere_is_done_when_it_is_answered(backend: Backend) -> None:
    """By a publisher, another node and the owner's own; it is done once, and undone by a leave."""
    async with backend.pools() as (one, two), backend.publisher() as publisher:
        alice = await one.host("app", "alice")
        told: list[tuple[str, str]] = []
        connection_of(alice).on("left", lambda *left: told.append(left))
        assert await publisher.join("app", "alice", "room:0") is DELIVERED
        assert await publisher.join("app", "alice", "room:0") is DELIVERED
        assert await ClusterPool.join(two, "app", "alice", "room:1", as_id="al") is DELIVERED
        assert await ClusterPool.join(one, "room:1", "al", "room:2") is DELIVERED
        rooms = "room:0", "room:1", "room:2"
        assert connection_of(alice).namespaces == ("app", *rooms)
        assert await ids(two, "room:1") == {"al"}
        assert await two.send("room:2", "alice", "hi", confirm=True) is DELIVERED
        assert told == []
        for room in rooms:
            assert await two.leave("app", "alice", room) is DELIVERED
            assert await two.leave("app", "alice", room) is DELIVERED
        assert await two.namespaces() == ["app"]
        await eventually(lambda: told == [(room, "removed") for room in rooms])
        assert alice.closed is None


@async_test
async def test_a_join_is_refused_as_the_owner_would_refuse_it(backend: Backend) -> None:
    """An id that is taken, a limit, a drain; an unknown member is absent."""
    async with backend.pools(limits=Limits(connection_namespaces=2)) as (one, two):
        alice, bob = await one.host("app", "alice"), await two.host("app", "bob")
        await connection_of(bob).join("room")
        join = ClusterPool.join
        assert await join(two, "app", "nobody", "room") is ABSENT
        assert await two.leave("app", "nobody", "room") is ABSENT
        taken = await join(two, "app", "alice", "room", as_id="bob", on_conflict="reject")
        assert taken is REFUSED
        assert await join(two, "app", "bob", "hall") is REFUSED
        one._parts.life.state = NodeState.DRAINING
        assert await join(two, "app", "alice", "room") is REFUSED
        one._parts.life.state = NodeState.ACTIVE
        grant, expired = connection_of(alice)._grant, SimpleNamespace(expired=True)
        connection_of(alice)._grant = expired  # type: ignore[assignment]
        assert await join(two, "app", "alice", "room") is REFUSED
        connection_of(alice)._grant = grant
        assert connection_of(alice).namespaces == ("app",)
        assert await join(two, "app", "alice", "room") is DELIVERED


@async_test
async def test_names_are_checked_before_anything_is_sent(backend: Backend) -> None:
    """As those of every call."""
    async with backend.publisher() as publisher:
        for arguments in (("{", "a", "b"), ("n", "", "b"), ("n", "a", "~")):
            for call in (publisher.join, publisher.leave):
                with pytest.raises(InvalidValueError):
                    await call(*arguments)
        with pytest.raises(InvalidValueError, match="on_conflict"):
            await publisher.join("n", "a", "b", on_conflict="perhaps")


@async_test
async def test_orders_for_one_connection_are_executed_in_order(backend: Backend) -> None:
    """Although none waits for the one before, and a join takes longer than a message."""
    async with backend.pools() as (one, two):
        alice = await one.host("app", "alice")
        for _ in range(5):
            calls = [two.leave, ClusterPool.join.__get__(two)] * 3
            results = await asyncio.gather(*[call("app", "alice", "room") for call in calls])
            assert set(results) == {DELIVERED}
            assert connection_of(alice).namespaces == ("app", "room")


@async_test
async def test_remove_all_ends_memberships_and_close_all_closes_connections(
    backend: Backend,
) -> None:
    """On every node; a connection whose home it is is closed by both."""
    async with backend.pools() as (one, two):
        emptied: list[str] = []
        for pool in (one, two):
            pool.on("empty", emptied.append)
        alice, bob = await one.host("app", "alice"), await two.host("app", "bob")
        host = await two.host("room", "host")
        told: list[tuple[str, str]] = []
        for guest in (alice, bob):
            for room in ("room", "hall"):
                await connection_of(guest).join(room)
            connection_of(guest).on("left", lambda *left: told.append(left))
        await one.broadcast_message("room", "last")
        assert await one.remove_all("room") == 2
        assert await host.wait_closed() == (1000, "")
        await eventually(lambda: len(told) == 2)
        assert set(told) == {("room", "removed")}
        assert [await one.wait_sent() for one in (alice, bob, host)] == [["last"]] * 3
        await eventually(lambda: _is_empty(one, "room"))
        assert await ids(one, "hall") == await ids(one, "app") == {"alice", "bob"}
        assert await one.remove_all("hall") == 2
        await eventually(lambda: emptied[-1:] == ["hall"])
        assert (alice.closed, bob.closed) == (None, None)
        await connection_of(bob).join("room")
        await one.close_all("room", 4000, "over")
        assert await bob.wait_closed() == (4000, "over")
        await eventually(lambda: _is_empty(one, "room"))
        assert await ids(one, "app") == {"alice"}


async def _is_empty(pool: ClusterPool, namespace: str) -> bool:
    return await pool.count(namespace) == 0


@async_test
async def test_leaving_home_from_elsewhere_closes_the_connection(backend: Backend) -> None:
    """With 1000, as its own leave does."""
    async with backend.pools() as (one, two):
        alice = await one.host("app", "alice")
        assert await two.leave("app", "alice", "app") is DELIVERED
        assert await alice.wait_closed() == (1000, "")
        assert await two.count("app") == 0


@async_test
async def test_orders_are_sealed_in_a_cluster_with_a_secret(backend: Backend) -> None:
    """Those of a stranger, who does not know it, are refused."""
    secret = "s" * 16
    async with (
        backend.pools(secret=secret) as (one, two),
        backend.publisher(timeout=0.5) as stranger,
    ):
        alice = await one.host("app", "alice")
        assert await ClusterPool.join(two, "app", "alice", "room") is DELIVERED
        assert await stranger.join("app", "alice", "hall") is SendResult.TIMED_OUT
        await stranger.remove_all("room")
        await eventually(lambda: one.statistics()["dropped_forged"] == 2)
        assert connection_of(alice).namespaces == ("app", "room")
        await two.remove_all("room")
        await eventually(lambda: connection_of(alice).namespaces == ("app",))


@async_test
async def test_orders_that_are_under_way_end_when_the_node_stops() -> None:
    """The connection is closed, and the caller is answered."""
    async with Backend(None).pools() as (one, two):
        await one.host("app", "alice")
        lease = one._parts.lease
        lease.unsettle()
        lease.failing = True
        joining = asyncio.create_task(
            ClusterPool.join(two, "app", "alice", "room", timeout=FAST.timeout * 2)
        )
        await eventually(lambda: one._parts.remote_joins._tasks)
        await one.stop()
        assert await joining in (REFUSED, SendResult.TIMED_OUT)
        assert await two.namespaces() == []


@async_test
async def test_orders_beyond_a_limit_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each that is under way has a task, which may wait long for Redis."""
    monkeypatch.setattr(remote_joins, "MOST_ORDERS", 1)

    async def join(*order: Any) -> None:
        await asyncio.Event().wait()

    node: Any = SimpleNamespace(join=join, decided=lambda membership: None)
    orders = remote_joins.RemoteJoins(node, node, node, node, FAST)
    member: Any = SimpleNamespace(connection=Connection("alice", "app", FakeWebSocket()))
    told: list[SendResult] = []
    for room in ("room", "hall"):
        orders.join(member, room, None, None, told.append)
    assert told == [REFUSED]
    await asyncio.sleep(0)
    await orders.stop()
    assert told == [REFUSED, REFUSED]
