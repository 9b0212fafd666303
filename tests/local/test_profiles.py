"""The profiles of memberships, made from their connections."""

from cluster_pool import Connection
from cluster_pool.local.membership import JoinedMembership, Membership, PersonMembership
from cluster_pool.local.profiles import info_in, profile_of, set_info, told_of
from cluster_pool.testing import FakeWebSocket


def test_each_membership_tells_the_user_and_its_own_info() -> None:
    """That among the connections of its user tells nothing."""
    connection = Connection("a", "room", FakeWebSocket(), user="42", info={"x": 1})
    set_info(connection, "lobby", "2")
    home = Membership(connection, "room", "a")
    joined = [JoinedMembership(connection, name, "a") for name in ("lobby", "other")]
    assert profile_of(home) == '{"user":"42","info":{"x":1}}'
    assert [profile_of(one) for one in joined] == ['{"user":"42","info":2}', '{"user":"42"}']
    assert profile_of(PersonMembership(connection, "~user:42", "s.1")) == ""
    guest = Membership(Connection("b", "room", FakeWebSocket()), "room", "b")
    assert told_of([guest, home]) == [(2, profile_of(home))]


def test_an_info_that_is_taken_back_leaves_nothing() -> None:
    """But the word that it was taken back, as long as the membership lasts."""
    connection = Connection("a", "room", FakeWebSocket(), info=0)
    assert info_in(connection, "room") == "0"
    set_info(connection, "room", "")
    assert profile_of(Membership(connection, "room", "a")) == "{}"
    set_info(connection, "room", None)
    set_info(connection, "other", None)
    assert connection._infos is None
    assert profile_of(Membership(connection, "room", "a")) == ""
