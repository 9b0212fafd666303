"""Ids, close codes, frames, claims, numbers, clocks, paces: the small pure parts."""

import gc
import weakref
from collections.abc import Callable
from enum import Enum, IntEnum

import pytest

from cluster_pool import InvalidCloseError, InvalidIdError, InvalidValueError, Limits, Timing
from cluster_pool.core.claims import Claim, incarnation_of
from cluster_pool.core.clock import RedisClock
from cluster_pool.core.closing import check_close
from cluster_pool.core.config import check_above_zero
from cluster_pool.core.ids import (
    base36,
    check_excluded,
    check_id,
    check_namespace,
    check_node_id,
    check_prefix,
    new_id,
    new_node_id,
    shown,
)
from cluster_pool.core.message import Outgoing, encode, frame_header
from cluster_pool.core.numbers import NO_COUNTER, Numbers
from cluster_pool.core.takeovers import Takeovers


def test_ids_that_are_allowed() -> None:
    """Colons, slashes, spaces and any script; 256 bytes of UTF-8, compared as they are."""
    for id in ("a", "a:b/c d", "ключ", "🙂" * 64, "x" * 256, "~"):
        assert check_id(id) == id


@pytest.mark.parametrize("id", ["", "x" * 257, "🙂" * 65, "\x7f", "\x9f", "{", "}", "\udfff", b"a"])
def test_ids_that_are_not(id: object) -> None:
    """The error is a ValueError and of this package."""
    with pytest.raises(InvalidIdError):
        check_id(id)


class Odd(str, Enum):  # noqa: UP042  # formats otherwise than a StrEnum
    """What FastAPI advises for path parameters; it formats as "Odd.NAME"."""

    NAME = "name"


class Code(IntEnum):
    GONE = 4000


class Loud(bytes):
    def __bytes__(self) -> bytes:
        return b"LOUD"


@pytest.mark.parametrize("check", [check_id, check_node_id, check_namespace, check_prefix])
def test_a_checked_name_is_an_exact_str(check: Callable[[object], str]) -> None:
    """Whatever its class makes of it when it is formatted, and whoever was checked before."""
    for value in (Odd.NAME, "name", Odd.NAME):
        assert type(check(value)) is str
        assert f"{check(value)}" == "name"


def test_other_checked_values_are_exact_too() -> None:
    """Codes, reasons and messages: what goes on the wire is never asked what it says."""
    code, reason = check_close(Code.GONE, Odd.NAME)
    assert (type(code), type(reason)) == (int, str)
    assert (code, reason) == (4000, "name")
    assert encode(Odd.NAME, 100) == (True, b"name")
    text, payload = encode(Loud(b"quiet"), 100)
    assert (text, payload, type(payload)) == (False, b"quiet", bytes)


def test_what_is_shown_is_escaped_and_cut() -> None:
    """Nothing of an id can forge a log line."""
    assert shown("a\u202e\nb") == "'a\\u202e\\nb'"
    assert len(shown("x" * 1000)) == 65
    assert shown(10**5000) == "a huge int", "Python refuses to write it"


def test_made_ids_are_allowed_and_differ() -> None:
    """What the package makes passes its own door."""
    assert check_id(new_id()) != check_id(new_id())
    assert check_id(new_node_id()) != new_node_id()
    assert [base36(n) for n in (0, 35, 36, 1295)] == ["0", "z", "10", "zz"]


@pytest.mark.parametrize("code", [1000, 1003, 1007, 1014, 3000, 4999])
def test_close_codes_that_may_be_sent(code: int) -> None:
    """IANA's registry and the ranges for libraries and applications."""
    assert check_close(code, "ü" * 61) == (code, "ü" * 61)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, "1000", True])
def test_close_codes_that_may_not(code: object) -> None:
    """Reserved ones, and what is no int."""
    with pytest.raises(InvalidCloseError):
        check_close(code, "")


def test_a_close_code_that_python_will_not_write() -> None:
    """The error is ours all the same."""
    with pytest.raises(InvalidCloseError, match="huge int"):
        check_close(10**5000, "")


def test_frame_headers() -> None:
    """RFC 6455 section 5.2: three length encodings, no mask, one frame."""
    assert frame_header(True, 125) == b"\x81\x7d"
    assert frame_header(False, 126) == b"\x82\x7e\x00\x7e"
    assert frame_header(True, 65535) == b"\x81\x7e\xff\xff"
    assert frame_header(False, 65536) == b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"


def test_joined_messages_are_one_write() -> None:
    """The frames stand back to back, and the parts stay known."""
    parts = (Outgoing(True, b"a"), Outgoing(False, b"b"))
    joined = Outgoing.join(parts)
    assert joined.frame == b"\x81\x01a\x82\x01b"
    assert tuple(joined.parts) == parts
    assert joined.size == 2
    assert joined.count == 2
    assert Outgoing.join(parts[:1]) is parts[0]


def test_a_message_is_freed_when_nobody_needs_it() -> None:
    """No reference cycle: a megabyte must not wait for the garbage collector."""
    gc.disable()
    try:
        for make in (
            lambda: Outgoing(True, b"x"),
            lambda: Outgoing.join([Outgoing(True, b"x")] * 2),
        ):
            gone = weakref.ref(make())
            assert gone() is None
    finally:
        gc.enable()


def test_claims_are_short_and_read_back() -> None:
    """A stored claim has at most 40 bytes."""
    claim = Claim(incarnation_of("aBcd-_12", 99), 1795412345678901, base36(10**9))
    assert Claim.parse(str(claim)) == claim
    assert len(str(claim)) <= 40
    assert claim.start == "aBcd-_12"


def test_limits_and_times_are_checked() -> None:
    """Zero, less, infinity and other types are refused, and a heartbeat that is too slow."""
    for bad in (0, -1, 1.5, "1", None, True):
        with pytest.raises(InvalidValueError):
            Limits(outbox_bytes=bad)  # type: ignore[arg-type]
    for bad in (0, -1, float("inf"), float("nan"), "1"):
        with pytest.raises(InvalidValueError):
            Timing(timeout=bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidValueError, match="a third of the lease"):
        Timing(lease=3, heartbeat=1.1)


@pytest.mark.parametrize("huge", [10**400, 1e305, 1.1e8])
def test_no_time_is_longer_than_a_loop_can_count(huge: float) -> None:
    """It would be refused by the loop, or by Redis, long after the node has started."""
    for name in ("timeout", "lease", "close", "linger", "probe", "handler"):
        with pytest.raises(InvalidValueError, match=f"{name} must be .* 1e\\+08 at most"):
            Timing(**{name: huge})
    assert Timing(timeout=1e8).timeout == 1e8


def test_a_number_that_no_float_can_hold_is_refused() -> None:
    """As what is no number above 0 is, and not by whoever calculates with it."""
    assert check_above_zero("rate", 10**300) == 1e300
    with pytest.raises(InvalidValueError):
        check_above_zero("rate", 10**400)


def test_numbers_count_what_is_missing() -> None:
    """Holes within and across interruptions are exact, in messages; what is late is no hole."""
    numbers = Numbers()
    numbers.heard("c", "e", 5, 3)
    numbers.heard("c", "e", 6, 1)
    numbers.heard("c", "e", 6, 0)
    assert numbers.take_missed() == ({}, True)
    numbers.heard("c", "e", 9, 2)
    assert numbers.take_missed() == ({"c": 1}, True)
    numbers.interrupted()
    numbers.heard("c", "e", 12, 1)
    numbers.settle("c", "e", 12, lost=False)
    assert numbers.take_missed() == ({"c": 2}, True)
    numbers.interrupted()
    numbers.settle("c", "e", 15, lost=False)
    assert numbers.take_missed() == ({"c": 3}, True)
    numbers.heard("c", "e", 14, 1)
    numbers.dropped("c", 7)
    assert numbers.take_missed() == ({"c": 7}, True)
    numbers.heard("c", "e", 16, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_settled_counter_may_be_older_than_what_was_heard_since() -> None:
    """The counter is read first, and messages go on arriving before it is looked at."""
    numbers = Numbers()
    numbers.heard("c", "e", 5, 1)
    numbers.interrupted()
    numbers.heard("c", "e", 8, 1)
    numbers.settle("c", "e", 7, lost=False)
    assert numbers.take_missed() == ({"c": 2}, True)
    numbers.heard("c", "e", 9, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_lost_counter_gives_a_lower_bound() -> None:
    """Across an interruption; while nothing was interrupted pub/sub has lost nothing."""
    numbers = Numbers()
    numbers.heard("c", "e", 5, 1)
    numbers.heard("c", "new", 2, 2)
    assert numbers.take_missed() == ({}, True)
    numbers.interrupted()
    numbers.settle("c", "newer", 4, lost=False)
    assert numbers.take_missed() == ({"c": 4}, False)
    numbers.interrupted()
    numbers.settle("c", "newer", 4, lost=True)
    assert numbers.take_missed() == ({"c": 0}, False)
    numbers.interrupted()
    numbers.settle("c", None, 0, lost=False)
    assert numbers.take_missed() == ({}, True)
    numbers.interrupted()
    numbers.settle("c", "newer", 3, lost=False)
    assert numbers.take_missed() == ({"c": 0}, False), "restored from a snapshot: it went back"
    numbers.heard("c", "newer", 4, 1)
    assert numbers.take_missed() == ({}, True)
    numbers.interrupted()
    numbers.heard("c", "newer", 4, 2)
    numbers.settle("c", "newer", 4, lost=False)
    assert numbers.take_missed() == ({"c": 0}, False)


def test_a_restored_counter_may_reach_the_same_number_again() -> None:
    """What was heard of it since is not taken back for the counter that was read before."""
    numbers = Numbers()
    numbers.heard("c", "e", 20, 1)
    numbers.interrupted()
    numbers.heard("c", "e", 20, 10)
    numbers.settle("c", "e", 17, lost=True)
    assert numbers.take_missed() == ({"c": 0}, False)
    numbers.heard("c", "e", 21, 1)
    assert numbers.take_missed() == ({}, True)


def test_a_channel_that_had_no_counter_begins_at_one() -> None:
    """Whoever subscribed before the first message misses from the first one on."""
    numbers = Numbers()
    numbers.begin("c", NO_COUNTER, 0)
    numbers.interrupted()
    numbers.settle("c", "e", 3, lost=False)
    assert numbers.take_missed() == ({"c": 3}, True)
    numbers.begin("d", "e", 7)
    numbers.heard("d", "e", 8, 1)
    assert numbers.take_missed() == ({}, True)
    numbers.settle("new", "e", 8, lost=True)
    numbers.heard("new", "e", 9, 1)
    assert numbers.take_missed() == ({}, True)


def test_the_time_of_redis_is_between_two_estimates() -> None:
    """It is counted from the arrival of what Redis said, and from when it was asked."""
    clock = RedisClock()
    clock.hear(1_000_000, 49.9, 50.0)
    assert clock.at(50.5) == 1_500_000
    assert clock.at(49.0) == 0
    assert 1_600_000 < clock.not_before(50.5) < 1_601_000


def test_a_late_word_about_the_time_takes_nothing_back() -> None:
    """What was known stays known while the reply agrees; a clock that was set is believed."""
    clock = RedisClock()
    clock.hear(1_000_000_000, 49.9, 50.0)
    clock.hear(1_001_000_000, 51.0, 53.0)
    assert 1_002_990_000 < clock.at(53.0) <= 1_003_000_000
    assert clock.not_before(53.0) >= 1_003_000_000
    clock.hear(1_004_000_000, 54.0, 54.0)
    assert clock.at(54.0) == 1_004_000_000
    for moment, said in ((55.0, 900_000_000), (56.0, 2_000_000_000)):
        clock.hear(said, moment - 0.5, moment)
        assert clock.at(moment) == said


def test_takeovers_that_repeat_are_noticed() -> None:
    """More than five of one id within ten seconds; others and older ones do not count."""
    takeovers = Takeovers()
    assert not any(takeovers.note("n", "a", moment) for moment in range(5))
    assert takeovers.note("n", "a", 5)
    assert not takeovers.note("n", "b", 5)
    assert not takeovers.note("n", "a", 30)


def test_what_a_broadcast_may_leave_out() -> None:
    """One id, or any number of them up to a bound; anything else is refused by name."""
    assert check_excluded("alice") == ["alice"]
    assert check_excluded(id for id in ("a", "b")) == ["a", "b"]
    for wrong in (None, 7, [None], b"alice", [""], map(str, range(10_001))):
        with pytest.raises(InvalidValueError):
            check_excluded(wrong)
