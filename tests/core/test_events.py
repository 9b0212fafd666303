"""The account of joins and leaves: every loss is seen, and nothing else is reported."""

import pytest

from cluster_pool.core.envelope import BrokenEnvelopeError
from cluster_pool.core.events import EventNumbers, read_event
from cluster_pool.core.results import MemberEvent


def lines(*numbers: int, epoch: str = "7", empty: bool = False) -> bytes:
    """Joins with these numbers, as the scripts publish them."""
    texts = [
        f'{{"event":"join","id":"a{n}","node":"x","n":{n},"epoch":"{epoch}"}}' for n in numbers
    ]
    if empty:
        texts[-1] = texts[-1].replace("}", ',"empty":true}')
    return "\n".join(texts).encode()


def test_events_that_follow_each_other_have_no_hole() -> None:
    """In one payload and in several; also over an empty namespace, which begins a new epoch."""
    numbers = EventNumbers()
    numbers.begin("c", None, 0)
    assert not numbers.heard("c", lines(1, 2, 3))
    assert not numbers.heard("c", lines(4, empty=True))
    assert not numbers.heard("c", lines(1, 2, epoch="8"))
    assert not numbers.heard("c", b'{"event":"join","id":"a","node":"x"}')
    assert not numbers.heard("c", b"rubbish")
    assert not numbers.heard("c", lines(3, epoch="8"))


@pytest.mark.parametrize(
    "payload",
    [lines(5), lines(2), lines(4, epoch="8"), lines(1, epoch="8"), lines(5, 6)],
    ids=["hole", "back", "another epoch", "a new epoch, and no empty namespace", "batch"],
)
def test_a_hole_is_found_once(payload: bytes) -> None:
    """Where numbers are left out or go back, and where the counter was lost."""
    numbers = EventNumbers()
    numbers.begin("c", "7", 2)
    assert not numbers.heard("c", lines(3))
    assert numbers.heard("c", payload)
    last = int(payload.rpartition(b'"n":')[2].partition(b",")[0])
    epoch = "8" if b'"8"' in payload else "7"
    assert not numbers.heard("c", lines(last + 1, epoch=epoch))


def test_events_that_the_counter_already_includes_may_still_come() -> None:
    """A new subscriber reads the counter while events before it are on their way."""
    numbers = EventNumbers()
    numbers.begin("c", "7", 4)
    assert not numbers.heard("c", lines(3))
    assert not numbers.heard("c", lines(4))
    assert not numbers.heard("c", lines(5))
    assert numbers.heard("c", lines(4))
    numbers.forget("c")
    assert not numbers.heard("c", lines(9))
    numbers.begin("c", "7", 8)
    assert not numbers.heard("c", lines(10))


def test_the_counter_shows_a_loss_during_an_interruption() -> None:
    """An unchanged counter means no loss; any other one may mean a loss, so it is reported."""
    numbers = EventNumbers()

    def resubscribed(epoch: str | None, number: int, *, lost: bool = False) -> bool:
        numbers.interrupted()
        return numbers.resubscribed("c", epoch, number, lost=lost)

    numbers.begin("c", "7", 4)
    assert not resubscribed("7", 4)
    assert not numbers.heard("c", lines(5))
    assert resubscribed("7", 6)
    assert not resubscribed("7", 6)
    assert resubscribed("7", 6, lost=True)
    assert resubscribed(None, 0)
    assert resubscribed(None, 0), "a member may have joined and left"
    assert not numbers.heard("c", lines(1, epoch="8"))
    assert resubscribed("9", 1)
    assert not numbers.heard("c", lines(2, epoch="9"))


def test_events_before_the_counter_is_read_are_no_hole() -> None:
    """The subscription is up, the counter not yet read, and events arrive."""
    numbers = EventNumbers()
    numbers.begin("c", "7", 4)
    numbers.interrupted()
    assert not numbers.heard("c", lines(5))
    numbers.interrupted()
    assert not numbers.heard("c", lines(9))
    assert numbers.resubscribed("c", "7", 8, lost=False)
    assert not numbers.heard("c", lines(10))
    assert not numbers.resubscribed("new", "7", 3, lost=True)
    assert not numbers.heard("new", lines(4))


def test_events_are_read_strictly() -> None:
    """A node may be unknown; nothing else may be missing or of another kind."""
    leave = b'{"event":"leave","id":"a","node":"","n":1,"epoch":"1","more":[]}'
    assert read_event(leave) == MemberEvent("leave", "a", "")
    deep = leave.replace(b"[]", b"[" * 100_000 + b"]" * 100_000)
    others = (leave.replace(b"leave", b"lost"), leave.replace(b'""', b"0"), deep)
    for broken in (b"", b"1", b"{}", b"[]", *others, leave.replace(b'"a"', b'""')):
        with pytest.raises(BrokenEnvelopeError):
            read_event(broken)


def test_events_that_are_heard_elsewhere_are_compared_there() -> None:
    """Nothing was missed if the counter stands where it stood."""
    for number, missed in ((3, False), (4, True)):
        here, there = EventNumbers(), EventNumbers()
        here.begin("c", "7", 2)
        assert not here.heard("c", lines(3))
        here.hand_over("c", there)
        assert there.resubscribed("c", "7", number, lost=False) is missed
        assert not there.heard("c", lines(number + 1))
