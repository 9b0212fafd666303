"""Profiles beside claims: written as JSON, read with suspicion."""

from typing import Any

import pytest

from cluster_pool import InvalidValueError
from cluster_pool.core.claims import Claim
from cluster_pool.core.profiles import (
    MAX_DEPTH,
    NONE,
    Profile,
    check_size,
    encode,
    encode_info,
    entry,
    read_entry,
)

CLAIM = Claim("start.0", 1764185220123456, "a1")


@pytest.mark.parametrize(
    ("user", "info"), [("42", None), (None, 0), ('"q"\\ü', {"a": [None, "\n"]}), ("42", False)]
)
def test_a_profile_is_read_as_it_was_written(user: str | None, info: Any) -> None:
    text = encode(user, None if info is None else encode_info(info))
    assert "\n" not in text
    assert read_entry(entry(CLAIM, text), CLAIM) == Profile(user, info)


def test_a_member_without_user_and_info_has_no_profile() -> None:
    assert encode(None, None) == ""
    assert read_entry(None, CLAIM) == NONE


def test_the_profile_of_an_earlier_claim_does_not_count() -> None:
    text = encode("42", "1")
    for other in (CLAIM._replace(time=CLAIM.time + 1), CLAIM._replace(nonce="a2")):
        assert read_entry(entry(other, text), CLAIM) == NONE


@pytest.mark.parametrize(
    "garbage", [b"", b"x", b"1764185220123456:a1 {", b"1764185220123456:a1 {nope}", b"\xff"]
)
def test_garbage_counts_as_no_profile(garbage: bytes) -> None:
    assert read_entry(garbage, CLAIM) == NONE
    assert read_entry(b'1764185220123456:a1 {"user":7,"info":7}', CLAIM) == Profile(None, 7)


def test_the_size_of_an_info_is_that_of_its_utf8() -> None:
    check_size(encode_info("ü" * 511), 1024)
    with pytest.raises(InvalidValueError, match="1026 bytes"):
        check_size(encode_info("ü" * 512), 1024)


def nested(levels: int) -> Any:
    """Lists and objects within each other."""
    value: Any = "[{"
    for level in range(levels):
        value = [0, value] if level % 2 else {"x": value}
    return value


def test_an_info_has_as_many_levels_as_every_reader_can_read() -> None:
    """Deeper ones are refused, also those that Python cannot encode; and are not read."""
    deepest = nested(MAX_DEPTH)
    text = encode(None, encode_info(deepest))
    assert read_entry(entry(CLAIM, text), CLAIM) == Profile(None, deepest)
    for levels in (MAX_DEPTH + 1, 500, 100_000):
        with pytest.raises(InvalidValueError, match="more than 32 levels"):
            encode_info(nested(levels))
    for levels in (MAX_DEPTH + 1, 500, 100_000):
        foreign = '{"user":"42","info":' + "[" * levels + "]" * levels + "}"
        assert read_entry(entry(CLAIM, foreign), CLAIM).info is None
