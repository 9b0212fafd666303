"""The messages of a history as their readers get them."""

import pytest

from cluster_pool.core import envelope
from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.history import Position
from cluster_pool.core.past import Broadcast, Reader, broadcast_for, outgoing_of


def test_a_reader_gets_the_broadcasts_that_do_not_leave_it_out() -> None:
    """One without id and user reads all."""
    plain = [envelope.TEXT, "é".encode(), ["alice"]]
    users = [envelope.EXCEPT[envelope.BINARY], b"\xff", ["alice"], ["42"]]
    published = [envelope.FROM[envelope.TEXT], b"hi", "alice", "42"]
    assert broadcast_for(Reader(), plain) == ("é", "", "")
    assert broadcast_for(Reader(), users) == (b"\xff", "", "")
    assert broadcast_for(Reader("alice"), plain) is None
    assert broadcast_for(Reader("bob", "42"), plain) == ("é", "", "")
    assert broadcast_for(Reader("bob", "42"), users) is None
    assert broadcast_for(Reader("alice", "7"), users) is None
    assert broadcast_for(Reader("bob", "7"), users) == (b"\xff", "", "")
    assert broadcast_for(Reader("alice", "42"), published) == ("hi", "alice", "42")
    assert broadcast_for(Reader(), [*published[:3], ""]) == ("hi", "alice", "")
    assert broadcast_for(Reader(), [envelope.CLOSE_ALL, 1000, ""]) is None
    for broken in (
        *([1, b"\xff", []], [1, "x", []], [2, 9, []], [1], [16, b"", []], [[]]),
        *([18, b"", 5, ""], [18, b"", "a"], [19, b"", "\n", ""], [19, b"", "a", 5]),
    ):
        with pytest.raises(BrokenEnvelopeError):
            broadcast_for(Reader("a", "b"), broken)


def test_a_message_of_the_past_is_as_members_got_it() -> None:
    """With its place, and the client that published it."""
    place = Position("5", 3)
    plain = outgoing_of("room", place, Broadcast("hi"))
    assert (plain.message, plain.source, plain.author) == ("hi", ("room", "5", 3), None)
    assert outgoing_of("room", place, Broadcast(b"hi", "alice", "42")).author == ("alice", "42")
