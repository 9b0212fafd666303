"""The wire format, byte for byte, and the handling of anything else."""

import random
import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster_pool.core import envelope
from cluster_pool.core.envelope import BrokenEnvelopeError, Header, ReplyTo, read_items
from cluster_pool.core.results import SendResult
from cluster_pool.exceptions import InvalidValueError


def test_header_and_items_are_read_back() -> None:
    """The header of the publishing script is parsed, and the items behind it."""
    payload = b"\xc1\x011795 12 2 abcd 3\n" + envelope.broadcast(True, b"x", ["a"])
    header, start = envelope.read_header(payload)
    assert header == Header("1795", 12, 2, "abcd", 3)
    assert list(read_items(payload[start:])) == [[envelope.TEXT, b"x", ["a"]]]


def test_items_match_the_protocol_page() -> None:
    """The kinds and their fields, for authors in other languages."""
    unpack = msgpack.unpackb
    to = ReplyTo("node", 7, "start")
    assert unpack(envelope.targeted(True, "n", "a", b"x")) == [1, "n", "a", b"x"]
    assert unpack(envelope.targeted(False, "n", "a", b"x", close=(4000, "r"), reply=to)) == [
        2,
        "n",
        "a",
        b"x",
        [4000, "r"],
        ["node", 7, "start"],
    ]
    assert unpack(envelope.close_one("n", "a", 1000, "", None)) == [3, "n", "a", 1000, "", []]
    wanted = envelope.targeted(True, "n", "a", b"x", reply=to, receipt_ms=1500)
    assert unpack(wanted) == [1, "n", "a", b"x", [], ["node", 7, "start"], 1500]
    closing = envelope.close_one("n", "a", 1000, "", to, receipt_ms=9)
    assert unpack(closing) == [3, "n", "a", 1000, "", ["node", 7, "start"], 9]
    reply = envelope.reply(to, SendResult.REFUSED)
    assert unpack(reply) == [4, 7, 4, "start"]
    assert unpack(envelope.unrouted(reply)) == ["", [4, 7, 4, "start"]]
    assert unpack(envelope.answer(to, "no")) == [11, 7, "no", "start"]
    assert unpack(envelope.broadcast(False, b"x")) == [2, b"x", []]
    assert unpack(envelope.broadcast(True, b"x", ["a"], ["42"])) == [16, b"x", ["a"], ["42"]]
    assert unpack(envelope.broadcast(False, b"x", (), ["42"])) == [17, b"x", [], ["42"]]
    assert unpack(envelope.published(True, b"x", ("a", "42"))) == [18, b"x", "a", "42"]
    assert unpack(envelope.published(False, b"x", ("a", ""))) == [19, b"x", "a", ""]
    assert unpack(envelope.close_all(1000, "r")) == [6, 1000, "r"]
    assert unpack(envelope.question("n", "a", to)) == [12, "n", "a", ["node", 7, "start"]]


def test_results_keep_their_numbers() -> None:
    """Other versions, and programs in other languages, read them."""
    named = ["delivered", "routed", "absent", "unreachable", "refused", "timed_out", "received"]
    assert [envelope.RESULTS[number].value for number in range(len(named))] == named


def test_receipt_is_wanted_within_a_time_or_refused() -> None:
    """An item of an earlier version wants none."""
    item: list[object] = [1, "n", "a", b"x", [], []]
    assert envelope.receipt_ms(item) == 0
    for wanted in (1, 3_600_000):
        assert envelope.receipt_ms([*item, wanted]) == wanted
    for bad in (0, -1, 3_600_001, 2**63, 1.5, True, "1", b"", None, []):
        with pytest.raises(BrokenEnvelopeError):
            envelope.receipt_ms([*item, bad])


def test_a_reply_address_is_read_or_refused() -> None:
    """No address, a full one, or a broken envelope, whatever another version writes."""
    assert ReplyTo.read([]) is None
    assert ReplyTo.read(["node", 7, "start"]) == ReplyTo("node", 7, "start")
    bad = (
        None,
        7,
        "",
        {},
        ["node"],
        ["node", 7],
        ["node", "7", "s"],
        ["node", 7, b"s"],
        [[], 7, "s"],
    )
    for fields in (*bad, ["node", 7, "start", 1]):
        with pytest.raises(BrokenEnvelopeError):
            ReplyTo.read(fields)
    with pytest.raises(InvalidValueError):
        ReplyTo.read(["{}", 7, "start"])


@pytest.mark.parametrize(
    ("payload", "text", "content"),
    [
        (b"Hello world!", True, b"Hello world!"),
        (b"", True, b""),
        ("grüß".encode(), True, "grüß".encode()),
        (b"\xff\x00", False, b"\xff\x00"),
        (b"\xc1\x00abc", False, b"abc"),
        (b"\xed\xa0\x80", False, b"\xed\xa0\x80"),
    ],
)
def test_a_raw_publish(payload: bytes, text: bool, content: bytes) -> None:
    """UTF-8 is text, other bytes are binary, 0xC1 0x00 marks binary."""
    assert envelope.raw_message(payload) == (text, content)


@pytest.mark.parametrize(
    "body",
    [
        b"\xc1",
        b"\x01",
        b"\x90",
        b"\x80",
        b"\x93\x01",
        b"\xdd\xff\xff\xff\xff",
        b"\xc9\x7f\xff\xff\xff\x01",
        b"\x91" * 5000,
        b"\x92\x01\xdc\x00\x64" + (b"\xdc\x27\x10" + b"\x90" * 10_000) * 100,
        b"\x93\x01\xc4\x00\x90" * 1001,
        b"\x92\x01\x81\x01\x01",
        b"\x92\x01\xd9\x02\xff\xff",
    ],
)
def test_broken_items_are_refused(body: bytes) -> None:
    """Bombs, maps, extensions, cut ends and what is no list never get through."""
    with pytest.raises(BrokenEnvelopeError):
        list(read_items(body))


def test_no_item_of_a_truncated_body_is_given() -> None:
    """Items before the cut are not given either; nor are those of a body with too many items."""
    items = read_items(envelope.broadcast(True, b"x") * 2 + b"\x93\x01")
    with pytest.raises(BrokenEnvelopeError):
        next(items)
    assert len(list(read_items(envelope.broadcast(True, b"x") * 1000))) == 1000
    with pytest.raises(BrokenEnvelopeError):
        next(read_items(envelope.broadcast(True, b"x") * 1001))


def test_a_list_with_a_false_length_costs_nothing() -> None:
    """A thousand lists in one another, of ten thousand elements that never come."""
    tracemalloc.start()
    try:
        with pytest.raises(BrokenEnvelopeError):
            list(read_items(b"\xdc\x27\x10" * 1000))
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_many_empty_lists_cost_little() -> None:
    """A large item may have few; small ones may have many, and are built one at a time."""
    message = [1, "n", "a", b"x" * envelope.SMALL_ITEM]
    assert list(read_items(envelope.pack([*message, *[[]] * 7])))
    with pytest.raises(BrokenEnvelopeError, match="lists"):
        list(read_items(envelope.pack([*message, *[[]] * 8])))
    items = envelope.MAX_ITEMS // 10
    body = envelope.pack([[]] * (envelope.SMALL_ITEM - 3)) * items
    tracemalloc.start()
    try:
        assert sum(1 for _ in read_items(body)) == items
        assert tracemalloc.get_traced_memory()[1] < len(body) + 1024 * 1024
    finally:
        tracemalloc.stop()


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=200))
def test_garbage_is_read_or_refused_without_other_errors(body: bytes) -> None:
    """Reading foreign bytes raises no other exception."""
    try:
        for item in read_items(body):
            assert isinstance(item, list)
        envelope.read_header(b"\xc1\x01" + body)
    except BrokenEnvelopeError:
        pass


def test_mutated_envelopes_are_read_or_refused() -> None:
    """The same for envelopes that are almost right."""
    chance = random.Random(1)
    good = b"\xc1\x011795 12 2 abcd 3\n" + envelope.targeted(True, "n", "a", b"x" * 20)
    for _ in range(5000):
        bad = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            bad[chance.randrange(2, len(bad))] = chance.randrange(256)
        try:
            _, start = envelope.read_header(bytes(bad))
            list(read_items(bytes(bad[start:])))
        except BrokenEnvelopeError:
            pass
