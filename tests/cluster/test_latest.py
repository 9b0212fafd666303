"""The memory of the latest writes."""

import pytest

from cluster_pool.cluster import latest
from cluster_pool.cluster.latest import Latest


def test_the_latest_things_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is noted again is the latest; the oldest is forgotten for another."""
    monkeypatch.setattr(latest, "MOST", 3)
    things: Latest[str] = Latest()
    for thing in "abcad":
        things.note(thing)
    assert list(things) == ["c", "a", "d"]
    assert list(things) == ["c", "a", "d"]
