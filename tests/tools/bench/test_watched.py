"""The scenario of a watcher from its processes to its rows, as small as it can be."""

import pytest

from tests.support import async_test
from tools.bench import watched
from tools.bench.__main__ import _parser, _settings

pytestmark = pytest.mark.real


@async_test
async def test_a_watcher_is_given_everything_in_few_changes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cost of an info and of each member, and no member too few."""
    monkeypatch.setattr(watched, "STORM", 200)
    settings = _settings(_parser().parse_args(["--quick", "--members", "500"]))
    rows = await watched.measure(settings, "asyncio", lambda text: None)
    assert not any(row.wrong for row in rows)
    assert {row.unit for row in rows} == {"s", "µs", "bytes", ""}
    assert all(len(row.samples) == 1 for row in rows)
