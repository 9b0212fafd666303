"""The question of a broadcast to its nodes, and their answers, on the wire."""

import msgpack
import pytest

from cluster_pool import BroadcastReport
from cluster_pool.core import envelope
from cluster_pool.core.envelope import BrokenEnvelopeError, ReplyTo
from cluster_pool.core.tally import Tally, TallyRequest, report_of

TO = ReplyTo("node-1", 7, "start")


def test_a_request_follows_what_nodes_of_earlier_versions_read() -> None:
    """For broadcasts that exclude users, and others."""
    request = TallyRequest(TO, 1500, receipts=True)
    for users in ((), ("42",)):
        plain = envelope.broadcast(True, b"hi", ["x"], users)
        asking = envelope.broadcast(True, b"hi", ["x"], users, request)
        assert TallyRequest.read(msgpack.unpackb(plain)) is None
        assert TallyRequest.read(msgpack.unpackb(asking)) == request
        assert msgpack.unpackb(asking)[: 3 + bool(users)] == msgpack.unpackb(plain)
    assert TallyRequest.read([envelope.FROM[envelope.TEXT], b"hi", "alice", ""]) is None


@pytest.mark.parametrize(
    "fields",
    [
        [[]],
        [[], 1, 0],
        [[*TO], 0, 0],
        [[*TO], envelope.MAX_RECEIPT_MS + 1, 0],
        [[*TO], 1, 2],
        [[*TO], 1],
        [[*TO], 1, 0, 0],
        [["node-1", "7", "start"], 1, 0],
        ["node-1", 1, 0],
        [[*TO], 1.5, 0],
    ],
)
def test_a_request_that_cannot_be_read(fields: list[object]) -> None:
    with pytest.raises(BrokenEnvelopeError):
        TallyRequest.read([envelope.TEXT, b"hi", [], *fields])


@pytest.mark.parametrize(
    ("seconds", "within_ms"), [(2.0, 1750), (0.4, 300), (0.0001, 1), (-1.0, 1)]
)
def test_nodes_answer_before_the_deadline(seconds: float, within_ms: int) -> None:
    assert TallyRequest.until(TO, seconds, receipts=False).within_ms == within_ms


def test_a_tally_is_read_as_it_was_written() -> None:
    tally = Tally(3, 2, 1, 4)
    item = msgpack.unpackb(tally.item(TO, "another"))
    assert item[:4] == [envelope.TALLY, TO.request, "another", TO.start]
    assert Tally.read(item) == tally
    for numbers in (
        [],
        [1, 2, 3],
        [1, 2, 3, -1],
        [1, 2, 3, True],
        [1, 2, 3, 4, 5],
        [10**9 + 1] * 4,
    ):
        with pytest.raises(BrokenEnvelopeError):
            Tally.read([*item[:4], *numbers])


def test_nodes_that_did_not_answer_are_silent() -> None:
    """One that answered is counted, also if Redis does not know that it heard it."""
    assert report_of(0, []) == BroadcastReport()
    sums = BroadcastReport(3, delivered=3, refused=1, received=2, timed_out=1, silent=1)
    assert report_of(3, [Tally(2, 1), Tally(1, 0, 2, 1)]) == sums
    assert report_of(1, [Tally(2), Tally(1)]) == BroadcastReport(2, delivered=3)
