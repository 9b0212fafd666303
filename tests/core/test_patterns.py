"""Patterns of names."""

import fnmatch
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster_pool.core.patterns import matches


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("room:*", "room:7", True),
        ("room:*", "room:", True),
        ("room:*", "rooms", False),
        ("*", "", True),
        ("a*a", "a", False),
        ("a*b*c", "a-c-b-c", True),
        ("a*b*c", "acb", False),
        ("room", "room", True),
        ("room", "room2", False),
        ("r[o]*", "room", False),
        ("r?om", "room", False),
    ],
)
def test_a_star_stands_for_any_text(pattern: str, name: str, fits: bool) -> None:
    assert matches(pattern, name) is fits


@given(st.text("ab*", max_size=8), st.text("ab", max_size=12))
def test_patterns_fit_as_fnmatch_says(pattern: str, name: str) -> None:
    assert matches(pattern, name) is bool(re.match(fnmatch.translate(pattern), name))


def test_a_hostile_pattern_takes_no_time() -> None:
    assert not matches("*a" * 2000 + "b", "a" * 100_000)
