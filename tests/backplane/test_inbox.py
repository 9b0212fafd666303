"""Received payloads that wait are bounded, and control items have the same room again."""

from cluster_pool.backplane.inbox import EMPTY, Heard, Inbox
from tests.support import async_test


def heard(size: int) -> Heard:
    """One payload of so many bytes."""
    return Heard("channel", 0, bytes(size), 0, "")


def test_a_payload_that_does_not_fit_is_refused_and_control_is_not() -> None:
    """Any payload fits into an empty inbox."""
    inbox = Inbox(100)
    assert inbox.put(heard(150))
    assert not inbox.put(heard(1))
    assert inbox.put(heard(50), control=True)
    assert not inbox.put(heard(1), control=True)
    assert (len(inbox), inbox.size) == (2, 200)


@async_test
async def test_payloads_are_taken_in_order_and_give_their_room_back() -> None:
    """An empty payload counts for some bytes all the same."""
    inbox = Inbox(1000)
    inbox.put(heard(7))
    inbox.put(heard(0))
    await inbox.wait()
    assert inbox.size == 7 + EMPTY
    first, second = inbox.pop(), inbox.pop()
    assert first is not None
    assert second is not None
    assert (len(first.payload), len(second.payload)) == (7, 0)
    assert inbox.pop() is None
    assert inbox.size == 0
