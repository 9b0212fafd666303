"""The memberships of connections among those of their users, and pools that have them."""

import pytest

from cluster_pool import Connection, ConnectionsPool, Delivery, Limits, MembershipLimitError
from cluster_pool.local.persons import Persons
from cluster_pool.testing import FakeWebSocket
from tests.support import async_test


def test_each_connection_of_a_user_has_an_id_of_its_own() -> None:
    """In one namespace; a connection without a user has no such membership."""
    persons = Persons("start")
    tabs = [Connection("tab", room, FakeWebSocket(), user="42") for room in ("a", "b")]
    first, second = (persons.membership_of(tab) for tab in tabs)
    assert first is not None
    assert second is not None
    assert (first.namespace, first.id) == ("~user:42", "start.1")
    assert (second.namespace, second.id) == ("~user:42", "start.2")
    assert first.namespace is second.namespace
    assert (first.person, first.home) == (True, False)
    assert persons.membership_of(Connection("guest", "a", FakeWebSocket())) is None


@async_test
async def test_a_person_is_no_namespace_of_a_connection_or_a_pool() -> None:
    """It counts in no statistics and no limit, and ends with the connection."""
    async with ConnectionsPool() as pool:
        tabs = [Connection("tab", room, FakeWebSocket(), user="42") for room in ("a", "b")]
        for tab in (*tabs, tabs[0]):  # once more: it is replaced by itself
            await pool.new_connection(tab)
        assert [tab.namespaces for tab in tabs] == [("a",), ("b",)]
        assert pool.statistics()["connections"] == pool.statistics()["namespaces"] == 2
        table = pool._table
        assert len(table.members["~user:42"]) == 2
        await tabs[0].close()
        assert len(table.members["~user:42"]) == 1
        await pool.remove_connection(tabs[1])
        assert table.members == {}
        assert pool.statistics()["namespaces"] == 0


@async_test
async def test_a_pool_of_one_process_reaches_users() -> None:
    """By the calls of a cluster; a closing connection is no longer one of its user's."""
    async with ConnectionsPool() as pool:
        tabs = []
        for room in ("a", "b"):
            tabs.append(FakeWebSocket())
            await pool.new_connection(Connection("tab", room, tabs[-1], user="42"))
        other = FakeWebSocket()
        await pool.new_connection(Connection("other", "a", other, user="43"))
        assert await pool.send_user("42", "hello") == Delivery(delivered=2)
        assert not await pool.send_user("44", "nobody")
        assert await pool.online(["42", "44"]) == {"42": 2, "44": 0}
        assert await pool.broadcast_message("a", "others", exclude_users=["42"]) == 1
        assert await pool.broadcast_json_message("a", 1, exclude_users="43") == 1
        assert await pool.close_user("42", 4401, "signed out") == 2
        for tab in tabs:
            assert await tab.wait_closed() == (4401, "signed out")
        assert [tab.sent for tab in tabs] == [["hello", "1"], ["hello"]]
        assert await pool.online("42") == {"42": 0}
        assert (other.sent, other.closed) == (["others"], None)


@async_test
async def test_a_pool_of_one_process_refuses_a_user_with_too_many_connections() -> None:
    """Nothing is left of the newcomer; one that is a member already may come again."""
    async with ConnectionsPool(limits=Limits(user_connections=1)) as pool:
        tab = Connection("tab", "a", FakeWebSocket(), user="42")
        await pool.new_connection(tab)
        await pool.new_connection(tab)
        with pytest.raises(MembershipLimitError, match="user_connections"):
            await pool.new_connection(Connection("more", "a", FakeWebSocket(), user="42"))
        assert pool.statistics()["connections"] == 1
        await pool.new_connection(Connection("other", "a", FakeWebSocket(), user="43"))
