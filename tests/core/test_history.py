"""Rules of histories, their settings, and the reading of entries."""

from typing import Any

import pytest

from cluster_pool import History, InvalidNamespaceError, InvalidValueError
from cluster_pool.core import envelope
from cluster_pool.core.envelope import ENVELOPE, BrokenEnvelopeError
from cluster_pool.core.history import (
    LARGEST,
    MOST,
    Entry,
    HistoryRules,
    Position,
    bounds_in,
    check_last,
    rules_of,
)

SMALL, LARGE = History(messages=1), History(messages=2)


@pytest.mark.parametrize(
    "bounds",
    [
        {"messages": 0},
        {"messages": 1.5},
        {"messages": True},
        {"bytes": LARGEST + 1},
        {"bytes": "1"},
        {"seconds": 0.9},
        {"seconds": 86_401},
        {"seconds": float("nan")},
        {"seconds": True},
    ],
)
def test_bounds_are_checked(bounds: dict[str, Any]) -> None:
    """The error names the bound and what is allowed."""
    (name,) = bounds
    with pytest.raises(InvalidValueError, match=f"^{name} must be an? "):
        History(**bounds)


def test_the_longest_pattern_counts() -> None:
    """The first of equally long ones; a namespace that fits none has no history, nor have users."""
    rules = HistoryRules({"*": SMALL, "room:*": LARGE, "room:?": SMALL, "*:7": SMALL}, 3.0)
    assert rules.of("room:7") is LARGE
    assert rules.of("room:?") is LARGE
    assert rules.of("hall:7") is SMALL
    assert rules.of("~user:7") is None
    assert HistoryRules({"room:*": LARGE}, 3.0).of("hall") is None
    assert HistoryRules(None, 3.0).of("room:7") is None
    assert not HistoryRules(None, 3.0)
    assert rules


@pytest.mark.parametrize(
    ("rules", "error"),
    [
        ([("a", SMALL)], InvalidValueError),
        ({"a": 5}, InvalidValueError),
        ({"": SMALL}, InvalidNamespaceError),
        ({"~user:*": SMALL}, InvalidNamespaceError),
        ({7: SMALL}, InvalidNamespaceError),
    ],
)
def test_rules_are_checked(rules: Any, error: type[Exception]) -> None:
    """Patterns must be possible in namespaces."""
    with pytest.raises(error):
        HistoryRules(rules, 3.0)


def test_rules_are_written_in_one_word() -> None:
    """As the command line gives them; what is left out has its default."""
    assert rules_of(["room:*=5", "a=b=7,1.5", "c=9,2,16MiB", "d=9,2,300", "e=9,targeted"]) == {
        "room:*": History(messages=5),
        "a=b": History(messages=7, seconds=1.5),
        "c": History(messages=9, seconds=2, bytes=16 * 1024 * 1024),
        "d": History(messages=9, seconds=2, bytes=300),
        "e": History(messages=9, replay_targeted_without_user=True),
    }
    for text in (
        "room",
        "=5",
        "a=",
        "a=5,",
        "a=x",
        "a=5,1,2MB",
        "a=-5",
        "a=0",
        "a=5,100000",
        "a=targeted",
    ):
        with pytest.raises(InvalidValueError):
            rules_of([text])
    with pytest.raises(InvalidValueError, match="once for each pattern"):
        rules_of(["a=1", "a=2"])


def test_a_setting_stands_long_enough_to_be_renewed() -> None:
    """Twenty heartbeats, or two minutes, beyond the history itself."""
    history = History(messages=5, seconds=0.5 + 1, bytes=7)
    assert HistoryRules({"a": history}, 3.0).asked("a") == "5 1500 7 121500"
    assert HistoryRules({"a": history}, 10.0).asked("a") == "5 1500 7 201500"
    assert HistoryRules({"a": history}, 3.0).asked("b") == ""
    assert bounds_in(b"5 1500 7") == history
    with pytest.raises(BrokenEnvelopeError):
        bounds_in(b"5 1500")


def entry(header: bytes, *items: bytes) -> list[bytes]:
    """The fields of an entry in a stream."""
    return [b"t", b"1500", b"e", ENVELOPE + header + b"\n" + b"".join(items)]


def test_each_item_of_an_entry_has_its_position() -> None:
    """The header has that of the last one."""
    one, two = envelope.broadcast(True, b"1"), envelope.close_all(1000, "")
    read = Entry.read(b"12-0", entry(b"9 70 2 start 1 12", one, two))
    assert read is not None
    assert read.time == 1500
    places = [(str(place), item) for place, item in read.placed()]
    assert places == [("9.11", [1, b"1", []]), ("9.12", [6, 1000, ""])]
    assert str(Position("", 0)) == ""
    assert not Position("", 0).is_within(Position("", 0))


@pytest.mark.parametrize(
    "fields",
    [
        [],
        [b"t"],
        [b"t", b"x", *entry(b"9 70 2 start 1 12")[2:]],
        [b"t", b"9" * 5000, *entry(b"9 70 2 start 1 12")[2:]],
        entry(b"9 70 2 start 1 13"),
        entry(b"9 70 2 start 1"),
        entry(b"9 70 2 start 1 1"),
        entry(b"nonsense"),
        [b"t", b"1", b"e", b"\xc1\x02"],
    ],
)
def test_entries_of_others_are_not_read(fields: list[bytes]) -> None:
    """Each of them would have no position, or another, or no time."""
    assert Entry.read(b"12-0", fields) is None
    assert Entry.read(b"12-1", entry(b"9 70 2 start 1 12")) is None


@pytest.mark.parametrize("last", [0, -1, 1.0, True, "5", MOST + 1])
def test_numbers_of_messages_to_read_are_checked(last: object) -> None:
    """From 1 to 10,000."""
    with pytest.raises(InvalidValueError):
        check_last(last)
    assert check_last(MOST) == MOST


def test_the_shortest_history_is_known() -> None:
    """Positions are stored again within its time."""
    rules = {"a": History(seconds=90), "b": History(seconds=200)}
    assert HistoryRules(rules, 3.0).shortest == 90
    assert HistoryRules(None, 3.0).shortest == 0
