"""Words of clients: good for one namespace, id and user, under one of the keys."""

import pytest

from cluster_pool.core.history import Position, Wish, check_offer
from cluster_pool.core.resumes import ResumeSeals
from cluster_pool.exceptions import InvalidValueError

START = Position("1764260000123", 17)
KEY, OTHER = b"k" * 32, b"o" * 32


def test_a_word_is_its_members_alone() -> None:
    """It begins with the position. A user who is not there is another than one without a name."""
    seals = ResumeSeals([KEY])
    word = seals.word(START, "room:7", "alice", "42")
    assert word.startswith("1764260000123.17.")
    assert seals.start_in(word, "room:7", "alice", "42") == START
    assert ResumeSeals([OTHER, KEY]).start_in(word, "room:7", "alice", "42") == START
    assert ResumeSeals([OTHER]).start_in(word, "room:7", "alice", "42") is None
    for namespace, id, user in (
        ("room:8", "alice", "42"),
        ("room:7", "bob", "42"),
        ("room:7", "alice", "43"),
        ("room:7", "alice", None),
        ("room:7alice", "", "42"),
    ):
        assert seals.start_in(word, namespace, id, user) is None


def test_a_word_that_was_changed_is_none() -> None:
    seals = ResumeSeals([KEY])
    word = seals.word(START, "n", "a", None)
    position, seal = word.rsplit(".", 1)
    changed = [
        word[:-1],
        f"{word}A",
        position,
        "",
        f"1764260000123.16.{seal}",
        f"{position}.{'A' * 20}",
    ]
    for one in (*changed, word.replace("1", "١"), f"{word}\n"):
        assert seals.start_in(one, "n", "a", None) is None


def test_a_client_gives_no_position_without_a_word() -> None:
    """A word alone is one: its own counts."""
    check_offer("1.2", "word")
    check_offer(None, "word")
    check_offer(None, None)
    wrong: list[tuple[object, object]] = [
        ("1.2", None),
        ("1.2", ""),
        ("x", "word"),
        (7, "w"),
        ("1.2", 5),
    ]
    for since, resume in wrong:
        with pytest.raises(InvalidValueError):
            check_offer(since, resume)  # type: ignore[arg-type]
    assert Wish.of(5, "1.2", "word") == Wish(5, Position("1", 2), "word")
