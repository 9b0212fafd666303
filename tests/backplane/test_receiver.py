"""A received event that cannot be kept is reported as lost, in its place."""

from cluster_pool.backplane.receiver import Receiver
from cluster_pool.core.config import Limits
from cluster_pool.core.events import MAX_BYTES
from cluster_pool.core.keys import Keys
from cluster_pool.core.numbers import Counter, ServerChange
from cluster_pool.core.statistics import Counters
from tests.backplane.contexts import context_of


def event(number: int, size: int = 0) -> bytes:
    """A join as the scripts publish it, of at least so many bytes."""
    return b'{"event":"join","id":"%s","node":"n","n":%d,"epoch":"1"}' % (b"x" * size, number)


def taken(receiver: Receiver) -> list[bytes]:
    """The payloads that the router would get."""
    return [heard.payload for heard in iter(receiver.inbox.pop, None)]


def test_events_that_do_not_fit_are_reported_as_lost() -> None:
    """Behind those that fitted; so are a payload larger than any batch, and a hole."""
    counters = Counters()
    keys = Keys()
    limits = Limits(inbox_bytes=MAX_BYTES, message_bytes=1)
    receiver = Receiver(context_of(keys, limits=limits, counters=counters))
    receiver.events["events"] = keys.owners("n")
    receiver.begin("events", Counter(None, 0))
    batches = [event(at, 100_000) for at in (1, 2, 3)]
    for batch in batches:
        receiver.hear("events", batch)
    assert taken(receiver) == [*batches[:2], b""]
    receiver.hear("events", event(4))
    receiver.hear("events", b"x" * (MAX_BYTES + 1))
    receiver.hear("events", event(6))
    assert taken(receiver) == [event(4), b"", b"", event(6)]
    assert (counters.dropped_overflow, counters.dropped_oversize) == (1, 1)
    assert receiver.take_gap(0.0, "") is None, "no message was among them"
    receiver.interrupted(1)
    receiver.resubscribed("events", Counter("1", 6), ServerChange.SAME, 0)
    assert taken(receiver) == []
    receiver.interrupted(1)
    receiver.resubscribed("events", Counter("1", 7), ServerChange.SAME, 0)
    assert taken(receiver) == [b""]
