"""The scenario of rooms from its processes to its rows, as small as it can be."""

import pytest

from tests.support import async_test
from tools.bench import rooms
from tools.bench.__main__ import _parser, _settings

pytestmark = pytest.mark.real


@async_test
async def test_memberships_are_counted_and_measured() -> None:
    """Times, turns, the longest script and memory, and no membership too few."""
    settings = _settings(_parser().parse_args(["--quick", "--storm", "50", "--rounds", "1"]))
    rows = await rooms.measure(settings, "asyncio", lambda text: None)
    assert not any(row.wrong for row in rows)
    assert {row.unit for row in rows} == {"s", "ms", "bytes"}
    assert all(len(row.samples) == 1 for row in rows)
