"""Joined memberships while Redis is away, while connections close, and while ids are fought for."""

import asyncio
import contextlib

import pytest

from cluster_pool import (
    BackplaneUnavailableError,
    ConnectionClosedError,
    IdTakenError,
    Limits,
    MembershipLimitError,
    PoolClosedError,
    SendResult,
)
from cluster_pool.local.closing import cut
from cluster_pool.testing import FAST
from tests.cluster.test_joins import ids
from tests.clusters import Backend, Pool, connection_of
from tests.servers import RedisServer
from tests.support import async_test, eventually


@async_test
async def test_joins_fail_in_time_and_leaves_are_made_up_while_redis_is_away(
    own_server: RedisServer,
) -> None:
    """Sends to what is joined already go on; in the end registry and pools agree."""
    backend = Backend(own_server)
    async with (
        backend.pools(1) as (one,),
        own_server.network() as proxy,
        Pool(proxy.url, node_id="far", timing=FAST) as far,
    ):
        alice = await far.host("app", "alice")
        connection = connection_of(alice)
        for room in ("room", "hall"):
            await connection.join(room)
        await proxy.refuse()
        await eventually(lambda: far.trouble)
        emptied: list[str] = []
        with pytest.raises(BackplaneUnavailableError):
            await connection.join("more", timeout=0.3)
        with pytest.raises(BackplaneUnavailableError):
            await connection.leave(
                "hall", on_empty_namespace=lambda: emptied.append("hall"), timeout=0.3
            )
        with pytest.raises(BackplaneUnavailableError):  # its release waits for Redis
            await connection.join("hall", timeout=0.3)
        assert connection.namespaces == ("app", "room")
        assert await far.send("room", "alice", "here") is SendResult.DELIVERED
        assert await alice.wait_sent() == ["here"]
        await proxy.accept()
        await eventually(lambda: emptied == ["hall"], 30)
        await eventually(lambda: far.ready, 30)
        await connection.join("hall")
        await connection.leave("more")
        await eventually(lambda: _lists(one, "app", "hall", "room"), 30)  # of each shard
        assert await ids(one, "room") == await ids(one, "hall") == {"alice"}


@async_test
async def test_a_join_that_is_under_way_when_its_connection_closes_leaves_nothing(
    backend: Backend,
) -> None:
    """No membership outlives its connection, whatever ends that, and whenever."""
    async with backend.pools() as (one, two):
        for number, pause in enumerate((0, 0, 0.001, 0.002, 0.004, 0.008)):
            alice = await one.host("app", f"alice{number}")
            connection = connection_of(alice)
            joins = [asyncio.create_task(connection.join(f"room:{at}")) for at in range(5)]
            await asyncio.sleep(pause)
            if number % 2:
                cut(connection)
            else:
                await two.close("app", f"alice{number}")
            results = await asyncio.gather(*joins, return_exceptions=True)
            assert all(one is None or isinstance(one, ConnectionClosedError) for one in results)
        await eventually(lambda: not one._parts.table.memberships())
        await eventually(lambda: _nothing(two))


async def _nothing(pool: Pool) -> bool:
    return await pool.namespaces() == []


@async_test
async def test_a_join_whose_caller_gives_up_is_undone(backend: Backend) -> None:
    """Cancelled before or after the claim is sent; a later join is not confused."""
    async with backend.pools(1) as (one,):
        connection = connection_of(await one.host("app", "alice"))
        for pause in (0, 0, 0.001, 0.002, 0.005):
            joining = asyncio.create_task(connection.join("room"))
            await asyncio.sleep(pause)
            joining.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await joining
            await connection.leave("room")
        await eventually(lambda: connection.namespaces == ("app",))
        await eventually(lambda: _lists(one, "app"))
        await connection.join("room")
        assert await ids(one, "room") == {"alice"}


async def _lists(pool: Pool, *namespaces: str) -> bool:
    return sorted(await pool.namespaces()) == list(namespaces)


@async_test
async def test_a_full_namespace_and_a_full_node_refuse_joins(backend: Backend) -> None:
    """The error names the limit; what is joined already stays."""
    limits = Limits(namespace_members=1, node_namespaces=2)
    async with backend.pools(1, limits=limits) as (one,):
        alice = connection_of(await one.host("app", "alice"))
        bob = connection_of(await one.host("room", "bob"))
        with pytest.raises(MembershipLimitError) as full:
            await alice.join("room")
        assert full.value.limit == "namespace_members"
        with pytest.raises(MembershipLimitError) as many:
            await bob.join("hall")
        assert many.value.limit == "node_namespaces"
        assert (alice.namespaces, bob.namespaces) == (("app",), ("room",))


@async_test
async def test_a_fight_for_a_joined_id_has_one_owner_and_closes_no_connection(
    backend: Backend,
) -> None:
    """Two connections join one id at once, again and again; the loser is told or refused."""
    async with backend.pools() as (one, two):
        fighters = [await one.host("app", "a"), await two.host("app", "b")]
        lost = [0, 0]
        for at, fighter in enumerate(fighters):
            connection_of(fighter).on("left", lambda *_, at=at: lost.__setitem__(at, lost[at] + 1))
        wins = refusals = 0
        for _ in range(4):
            results = await asyncio.gather(
                *[connection_of(one).join("room", id="x") for one in fighters],
                return_exceptions=True,
            )
            assert all(one is None or isinstance(one, IdTakenError) for one in results)
            wins += results.count(None)
            refusals += len(results) - results.count(None)
            await eventually(lambda: _one_owner(fighters))
        assert all(fighter.closed is None for fighter in fighters)
        assert await ids(one, "room") == {"x"}
        await eventually(lambda: sum(lost) >= 1)


def _one_owner(fighters: list) -> bool:  # type: ignore[type-arg]
    return sum("room" in connection_of(one).namespaces for one in fighters) == 1


@async_test
async def test_a_client_that_has_gone_gives_its_joined_id_up_under_reject(
    backend: Backend,
) -> None:
    """Its node asks it for a sign of life; then the newcomer has the id."""
    async with backend.pools() as (one, two):
        alice, bob = await one.host("app", "alice"), await two.host("app", "bob")
        await connection_of(alice).join("room", id="x")

        async def dead(within: float) -> bool:
            return False

        connection_of(alice)._transport.alive = dead  # type: ignore[method-assign]
        await connection_of(bob).join("room", id="x", on_conflict="reject")
        assert connection_of(bob).namespaces == ("app", "room")
        await eventually(lambda: not one._parts.table.memberships())
        assert await ids(one, "room") == {"x"}
        assert await ids(one, "app") == {"bob"}


@async_test
async def test_a_stop_ends_joins_and_releases_everything(backend: Backend) -> None:
    """A clean stop leaves nothing behind, whatever was joined or is being joined."""
    async with backend.pools(1) as (one,):
        async with Pool(
            backend.redis(), node_id="gone", prefix=backend.prefix, timing=FAST
        ) as gone:
            connection = connection_of(await gone.host("app", "alice"))
            for room in ("room", "hall"):
                await connection.join(room)
            joining = asyncio.create_task(connection.join("more"))
            await asyncio.sleep(0)
        (result,) = await asyncio.gather(joining, return_exceptions=True)
        assert result is None or isinstance(result, PoolClosedError | ConnectionClosedError)
        assert await one.namespaces() == []
