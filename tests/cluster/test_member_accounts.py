"""Up to where one connection has received the histories of its namespaces."""

from collections.abc import Iterable

from cluster_pool import Connection
from cluster_pool.cluster.member_accounts import Member, MemberAccount, Once, mark_of
from cluster_pool.core.claims import Claim
from cluster_pool.core.history import Position
from cluster_pool.local.membership import Membership
from cluster_pool.testing import FakeWebSocket

ROOM = "room"


class Kept:
    """An account of one connection with one member, and what it has told."""

    def __init__(self, base: int = 10) -> None:
        self.connection = Connection("alice", ROOM, FakeWebSocket())
        self.member: Member = Membership(self.connection, ROOM, "alice")
        self.reached: dict[str, Position] = {}
        self.changed: list[Member] = []
        self.account = MemberAccount(self.reached, self._changed)
        self.account.has[self.member] = Position("1", 5)
        self.account.bases[self.member] = Position("1", base)

    def _changed(self, members: Iterable[Member]) -> None:
        self.changed += members

    def written(self) -> str:
        return str(self.account.written()[self.member])


def test_all_that_was_given_to_the_members_counts_as_written() -> None:
    """But nothing below the place up to which the past was replayed; an epoch that is another
    counts as soon as it is heard."""
    one = Kept(base=10)
    assert one.written() == "1.10"
    one.reached[ROOM] = Position("1", 8)
    assert one.written() == "1.10"
    one.reached[ROOM] = Position("1", 12)
    assert one.written() == "1.12"


def test_nothing_counts_as_written_before_the_past_was_replayed() -> None:
    """A Pong that comes earlier proves nothing."""
    one = Kept()
    del one.account.bases[one.member]
    one.reached[ROOM] = Position("1", 99)
    assert one.account.written() == {}
    one.account.received({})
    assert one.account.has[one.member] == Position("1", 5)


def test_messages_after_a_close_do_not_count_as_written() -> None:
    """Though the node goes on hearing it for other members."""
    one = Kept()
    one.reached[ROOM] = Position("1", 12)
    one.account.closing(opened=True)
    one.reached[ROOM] = Position("1", 13)
    assert one.written() == "1.12"


def test_a_receipt_is_stored_if_it_is_news() -> None:
    """Once; no word at all is none."""
    one = Kept()
    word = one.account.written()
    one.account.received(word)
    one.account.received(word)
    one.account.received(None)
    assert one.changed == [one.member]
    assert one.account.has == word


def test_the_end_is_told_once_to_each_that_waits() -> None:
    """However often it is told."""
    one, told = Kept(), list[str]()
    once = Once(lambda: told.append("once"))
    one.account.parked += [once, once, lambda: told.append("released")]
    one.account.over()
    one.account.over()
    assert one.account.is_over
    assert told == ["once", "released"]


def test_a_loss_of_which_nobody_hears_is_told_to_the_next() -> None:
    """So the position of a connection that never opens stays as it is."""
    for recovered, opened, counts in (
        (False, False, False),
        (False, True, True),
        (None, False, True),
    ):
        one = Kept(base=10)
        one.account.recovered = recovered
        one.account.closing(opened=opened)
        one.account.received(one.account.written())
        assert (one.account.has[one.member].number == 10) is counts


def test_the_mark_of_a_claim_stays_over_rejoins() -> None:
    """Its lease changes."""
    claim = Claim("start.0", 5, "n1")
    assert mark_of(claim) == mark_of(claim._replace(incarnation="start.1")) == "5:n1"
