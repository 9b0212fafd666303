"""The application that tells clients what their node knows to be missing."""

import pytest

from cluster_pool import Gap
from tools.harness.telling import concerns


@pytest.mark.parametrize(
    ("gap", "told"),
    [
        (Gap({"room": 1}, exact=True, seconds=1), True),
        (Gap({"": 1}, exact=True, seconds=1), True),
        (Gap({"other": 1}, exact=True, seconds=1), False),
        (Gap({}, exact=False, seconds=1), True),
    ],
    ids=["of its namespace", "of this node", "of another namespace", "nobody knows"],
)
def test_a_gap_is_told_to_those_who_may_lack_something(gap: Gap, told: bool) -> None:
    """Messages to single members are told to all: nobody knows for whom they were."""
    assert concerns(gap, "room") is told
