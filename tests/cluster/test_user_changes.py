"""Users who come to a namespace and leave it: each once, whatever their connections do."""

import asyncio

from cluster_pool import Connection, Member, PresenceChanges, UserEvent
from cluster_pool.cluster.user_changes import UserChanges
from cluster_pool.testing import FakeWebSocket
from tests.clusters import Backend, Pool
from tests.support import async_test, eventually


def joins(*members: tuple[str, str | None]) -> PresenceChanges:
    return PresenceChanges(joined=tuple(Member(id, "n", user) for id, user in members))


def leaves(*ids: str) -> PresenceChanges:
    return PresenceChanges(left=tuple(Member(id, "n") for id in ids))


def test_a_user_comes_with_the_first_connection_and_leaves_with_the_last() -> None:
    """Those who were there before have come already; members without a user do not count."""
    users = UserChanges([Member("a", "n", "42"), Member("x", "n")], grace=5.0)
    assert users.apply(joins(("b", "42"), ("c", "43"), ("d", "43"), ("y", None)), 0.0) == [
        UserEvent("join", "43")
    ]
    assert users.apply(leaves("a", "c", "x"), 1.0) == []
    assert users.apply(leaves("b"), 2.0) == []
    assert users.next_leave() == 7.0
    assert users.gone(6.9) == []
    assert users.gone(7.0) == [UserEvent("leave", "42")]
    assert users.gone(100.0) == []
    assert users.apply(joins(("a", "42")), 101.0) == [UserEvent("join", "42")]


def test_one_who_comes_back_within_the_grace_has_not_left() -> None:
    users = UserChanges([Member("a", "n", "42")], grace=5.0)
    assert users.apply(leaves("a"), 0.0) == []
    assert users.apply(joins(("b", "42")), 4.0) == []
    assert users.gone(100.0) == []


def test_an_id_that_another_user_takes_over_changes_its_user() -> None:
    users = UserChanges([Member("a", "n", "42")], grace=0.0)
    changes = PresenceChanges(updated=(Member("a", "n", "43"),))
    assert users.apply(changes, 0.0) == [UserEvent("join", "43")]
    assert users.gone(0.0) == [UserEvent("leave", "42")]


async def join(pool: Pool, id: str, user: str) -> Connection:
    connection = Connection(id, "room", FakeWebSocket(), user=user)
    await pool.new_connection(connection)
    return connection


@async_test
async def test_users_are_watched_over_all_nodes(backend: Backend) -> None:
    """A tab that is reloaded is no change; the last tab of a node that dies is one."""
    async with backend.pools(2) as (one, two), backend.publisher() as publisher:
        there = await join(one, "there", "41")
        seen: list[UserEvent] = []

        async def watch() -> None:
            events = publisher.watch_users("room", grace=1.0)
            while True:
                seen.append(await anext(events))

        watching = asyncio.create_task(watch())
        await asyncio.sleep(0.3)
        first = await join(one, "a", "42")
        second = await join(two, "b", "42")
        await one.remove_connection(first)
        await two.remove_connection(second)
        await join(one, "a", "42")  # reloaded
        await one.remove_connection(there)
        await eventually(lambda: len(seen) == 2, 20)
        await asyncio.sleep(1.5)
        assert seen == [UserEvent("join", "42"), UserEvent("leave", "41")]
        watching.cancel()
