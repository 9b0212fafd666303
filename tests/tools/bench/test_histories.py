"""The scenario of histories from its pools to its rows, as small as it can be."""

from collections import Counter

import pytest

from tests.support import async_test
from tools.bench import histories
from tools.bench.__main__ import _parser, _settings
from tools.bench.histories import PLAIN, WORKS, stand


def test_the_bytes_that_are_allowed() -> None:
    """Payload and overhead, and the id of 36 bytes of one that is targeted."""
    assert [work.allowed for work in WORKS] == [188, 188, 294, 224]


@pytest.mark.real
@async_test
async def test_all_is_heard_and_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row for each way to send: with a history, its bytes, and beside rules of others."""
    monkeypatch.setattr(histories, "IDS", 5)
    arguments = ["--quick", "--rounds", "1"]
    settings = _settings(_parser().parse_args(arguments))
    made = await histories.measure(settings, "", lambda text: None)
    assert not any(row.wrong for row in made)
    assert Counter(row.unit for row in made) == dict.fromkeys(("µs", "bytes", "×"), len(WORKS))
    assert all(row.samples[0] > 0 for row in made)


@pytest.mark.real
@async_test
async def test_a_message_that_is_not_heard_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """The results of the sends are told, too."""
    monkeypatch.setattr(histories, "IDS", 2)
    monkeypatch.setattr(histories, "ARRIVAL", 0.5)
    async with stand({}, [PLAIN]) as here:
        monkeypatch.setattr(histories, "IDS", 3)
        await here.round(WORKS[2], PLAIN, 3)
        assert here.wrong == "WRONG: 2 of 3 heard, sent: {'True': 2, 'False': 1}"
