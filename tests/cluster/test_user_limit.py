"""Users with as many connections as they may have: one more is refused, or the oldest is closed."""

import asyncio
from typing import Any

import pytest

from cluster_pool import (
    Connection,
    ConnectionClosedError,
    IdTakenError,
    Limits,
    MembershipLimitError,
)
from cluster_pool.cluster import user_limit as module
from cluster_pool.cluster.accept import refusal
from cluster_pool.local.membership import Membership
from tests.cluster.test_joins import ids
from tests.cluster.test_people import has, tabs
from tests.clusters import Backend, Pool, connection_of
from tests.servers import RedisServer
from tests.support import async_test, eventually


@async_test
async def test_one_connection_too_many_is_refused_in_the_whole_cluster(backend: Backend) -> None:
    """However many come at once, on whichever nodes; nothing is left of the others."""
    async with backend.pools(limits=Limits(user_connections=3)) as (one, two):
        joins = [
            (one if number % 2 else two).host("room", str(number), user="42")
            for number in range(10)
        ]
        results = await asyncio.gather(*joins, return_exceptions=True)
        refused = [one for one in results if isinstance(one, MembershipLimitError)]
        members = [one for one in results if not isinstance(one, BaseException)]
        assert (len(members), len(refused)) == (3, 7)
        assert {(error.limit, error.allowed) for error in refused} == {("user_connections", 3)}
        assert await tabs(one, "42") == 3
        assert len(await ids(one, "room")) == 3
        await one.host("room", "other", user="43")
        await two.host("room", "guest")
        await connection_of(members[0]).close()
        await eventually(has(one, "42", 2))
        await one.host("room", "again", user="42")


@async_test
async def test_the_oldest_connections_are_closed_if_the_pool_says_so(backend: Backend) -> None:
    """Once the newcomer has its home, and not if that is refused."""
    limits = Limits(user_connections=2)
    async with backend.pools(limits=limits, on_user_limit="oldest") as (one, two):
        hers = [
            await (one if number % 2 else two).host("room", str(number), user="42")
            for number in range(2)
        ]
        await two.host("room", "taken", user="43")
        with pytest.raises(IdTakenError):
            await one.host("room", "taken", user="42", on_conflict="reject", timeout=0.5)
        await eventually(has(one, "42", 2))
        assert [tab.closed for tab in hers] == [None, None]
        hers.append(await one.host("room", "2", user="42"))
        assert await hers[0].wait_closed() == (4409, "user limit")
        await eventually(has(two, "42", 2))
        assert [tab.closed for tab in hers[1:]] == [None, None]
        assert await ids(one, "room") == {"1", "2", "taken"}


@async_test
async def test_the_newest_of_many_that_come_at_once_stay(backend: Backend) -> None:
    """Each closes those beyond the limit; two that look at the same time close the same ones."""
    limits = Limits(user_connections=2)
    async with backend.pools(limits=limits, on_user_limit="oldest") as (one, two):
        first = await one.host("room", "first", user="42")
        joins = [
            (one if number % 2 else two).host("room", str(number), user="42") for number in range(6)
        ]
        results = await asyncio.gather(*joins, return_exceptions=True)
        late = [one for one in results if isinstance(one, BaseException)]
        assert all(isinstance(one, ConnectionClosedError) for one in late)
        assert await first.wait_closed() == (4409, "user limit")
        await eventually(has(one, "42", 2))
        members = [one for one in results if not isinstance(one, BaseException)]
        await eventually(lambda: sum(tab.closed is None for tab in members) == 2)
        assert {tab.closed for tab in members} == {None, (4409, "user limit")}


@async_test
async def test_a_newcomer_without_its_home_displaces_nobody(backend: Backend) -> None:
    """Not even for another newcomer that comes while its home is being claimed."""
    limits = Limits(user_connections=2)
    async with backend.pools(limits=limits, on_user_limit="oldest") as (one, two):
        hers = [await one.host("room", "a", user="42"), await two.host("room", "b", user="42")]
        await two.host("room", "taken", user="43")
        claim, sent, goes_on = one._parts.ownership.claim, asyncio.Event(), asyncio.Event()

        async def slow(membership: Membership[Connection], **options: Any) -> None:
            if membership.home:
                sent.set()
                await goes_on.wait()
            await claim(membership, **options)

        one._parts.ownership.claim = slow  # type: ignore[method-assign]
        refused = asyncio.create_task(one.host("room", "taken", user="42", on_conflict="reject"))
        await sent.wait()
        hers.append(await two.host("room", "c", user="42"))
        assert await hers[0].wait_closed() == (4409, "user limit")
        await eventually(has(two, "42", 2))
        goes_on.set()
        with pytest.raises(IdTakenError):
            await refused
        await eventually(lambda: not two._parts.user_limit._tasks)
        assert [tab.closed for tab in hers[1:]] == [None, None]
        assert await tabs(two, "42") == 2


@async_test
async def test_an_oldest_connection_that_cannot_be_reached_is_closed_later(
    own_server: RedisServer,
) -> None:
    """Its node has lost Redis when the newcomers join, and hears nothing."""
    backend, options = Backend(own_server), {"on_user_limit": "oldest"}
    limits = Limits(user_connections=2)
    async with (
        own_server.network() as proxy,
        backend.pools(1, limits=limits, **options) as (one,),
        Pool(proxy.url, timing=one.timing, limits=limits, **options) as far,
    ):
        old = [await far.host("room", f"old {number}", user="42") for number in range(2)]
        await proxy.refuse()
        new = [await one.host("room", f"new {number}", user="42") for number in range(2)]
        await proxy.accept()
        for tab in old:
            assert await asyncio.wait_for(tab.wait_closed(), 30) == (4409, "user limit")
        await eventually(has(one, "42", 2))
        assert [tab.closed for tab in new] == [None, None]


@async_test
async def test_a_newcomer_is_seen_although_the_next_look_is_far_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Claims of a dead node may keep a user above the limit for long."""
    monkeypatch.setattr(module, "PAUSE", 600.0)
    backend, limits = Backend(None), Limits(user_connections=1)
    async with backend.pools(1, limits=limits, on_user_limit="oldest") as (one,):
        tabs = [await one.host("room", str(number), user="42") for number in range(2)]
        await eventually(lambda: tabs[0].closed)
        for number in range(2, 5):
            tabs.append(await one.host("room", str(number), user="42"))
            await eventually(lambda: tabs[-2].closed)
        assert tabs[-1].closed is None


def test_a_refused_user_is_told_so_by_the_status() -> None:
    """Other nodes would refuse the client, too, so it is not asked to try one."""
    assert refusal(MembershipLimitError("user_connections", 3))[0] == 429
    assert refusal(MembershipLimitError("namespace_members", 3))[0] == 503
