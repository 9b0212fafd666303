"""What is heard and cannot be kept is said, in its place."""

from cluster_pool.backplane.hearing import Hearing
from cluster_pool.core.config import Limits
from cluster_pool.core.events import MAX_BYTES
from cluster_pool.core.identity import Identity
from cluster_pool.core.keys import Keys
from cluster_pool.core.statistics import Counters


def event(number: int, size: int = 0) -> bytes:
    """A join as the scripts publish it, of at least so many bytes."""
    return b'{"event":"join","id":"%s","node":"n","n":%d,"epoch":"1"}' % (b"x" * size, number)


def taken(hearing: Hearing) -> list[bytes]:
    """What the router would get."""
    return [heard.payload for heard in iter(hearing.inbox.take, None)]


def test_events_that_do_not_fit_are_said_to_be_lost() -> None:
    """Behind those that did; so are a payload that is larger than any batch, and a hole."""
    counters = Counters()
    keys = Keys()
    limits = Limits(inbox_bytes=MAX_BYTES, message_bytes=1)
    hearing = Hearing(keys, Identity(keys), limits=limits, counters=counters, sealed=False)
    hearing.events["events"] = keys.owners("n")
    hearing.begin("events", None, 0)
    batches = [event(at, 100_000) for at in (1, 2, 3)]
    for batch in batches:
        hearing.hear("events", batch)
    assert taken(hearing) == [*batches[:2], b""]
    hearing.hear("events", event(4))
    hearing.hear("events", b"x" * (MAX_BYTES + 1))
    hearing.hear("events", event(6))
    assert taken(hearing) == [event(4), b"", b"", event(6)]
    assert (counters.dropped_overflow, counters.dropped_oversize) == (1, 1)
    assert hearing.take_gap(0.0, "") is None, "no message was among them"
    hearing.interrupted(1)
    hearing.settle("events", "1", 6, lost=False)
    assert taken(hearing) == []
    hearing.interrupted(1)
    hearing.settle("events", "1", 7, lost=False)
    assert taken(hearing) == [b""]
