"""The faults of scripts/chaos-targets, once and smaller; the deadline is three times the target."""

from collections.abc import Sequence

import pytest

from tests.support import async_test
from tools.chaos.targets import freeze, restart, silence, slow
from tools.chaos.targets.rows import Row, markdown

pytestmark = pytest.mark.real


def quiet(text: str) -> None:
    """Nobody reads along."""


def check(rows: Sequence[Row]) -> None:
    for row in rows:
        assert not row.wrong, row
        if row.target is not None and row.unit == "s":
            assert max(row.values) <= 3 * row.target, row


@async_test
async def test_redis_comes_back_empty_or_from_a_snapshot() -> None:
    """Nobody is closed, everything is heard and registered again, no gap is called exact."""
    check(await restart.measure(members=999, downs=(0.3,), tell=quiet))


@pytest.mark.slow
@async_test
async def test_silence_is_noticed() -> None:
    """Not ready, sends that fail in time, answers that are true, nothing twice."""
    check(await silence.measure(times=1, tell=quiet))


@pytest.mark.slow
@async_test
async def test_a_frozen_node_gives_way() -> None:
    """Never two registered owners; stale connections are closed when it runs again."""
    check(await freeze.measure(times=1, tell=quiet))


@pytest.mark.slow
@async_test
async def test_clients_that_never_read() -> None:
    """They are cut, the others are served, a SIGTERM ends in time and leaves nothing."""
    check(await slow.measure(stuck=100, turns=1, pings=100, tell=quiet))


def test_a_missed_target_is_seen() -> None:
    """In the table, and by the exit status."""
    missed = Row("f", "w", [1.0, 3.0], 2.0)
    wrong = Row("f", "w", [1.0], 2.0, wrong=["twice"])
    assert not missed.kept
    assert not wrong.kept
    assert Row("f", "w", [1.0, 2.0], 2.0).kept
    text = markdown([missed, wrong])
    assert "MISSED" in text
    assert "WRONG: twice" in text
    with pytest.raises(AssertionError):
        check([wrong])
    with pytest.raises(AssertionError):
        check([Row("f", "w", [6.1], 2.0)])
