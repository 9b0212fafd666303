"""The sends of scripts/bench in a round: comparisons have the same state, and are checked."""

import asyncio
from typing import Any

import pytest

from tools.bench import delivery
from tools.bench.__main__ import _parser, _settings
from tools.bench.delivery import Pair, Rounds, Work, works
from tools.bench.stage import fault

QUICK = 16
"""Segments after a pause that Linux acknowledges at once."""


@pytest.mark.parametrize("arguments", [(), ("--quick",)])
def test_a_round_stays_within_the_segments_that_are_acknowledged_at_once(
    arguments: tuple[str, ...],
) -> None:
    """For the floor, for broadcasts and sends, and for our bursts, which are one write each."""
    settings = _settings(_parser().parse_args(arguments))
    assert settings.messages <= QUICK
    assert all(work.rounds <= QUICK for work in works(settings).values())


def test_less_work_is_at_least_one_round() -> None:
    """With any number of rounds and any share."""
    assert Work("", "broadcast", 30).less(4).rounds == 7
    assert Work("", "broadcast", 1, 16).less(4) == Work("", "broadcast", 1, 16)


class Scripted:
    """Programs of a round that answer as they are told."""

    pid = 0
    count = 10

    def __init__(self, said: dict[str, int], report: dict[str, int]) -> None:
        self._said = said
        self._report = report

    async def ask(self, do: str, **fields: Any) -> dict[str, int]:
        return self._said

    async def expect(self, per_gate: int, first: int) -> None: ...

    async def report(self, total: int) -> dict[str, int]:
        return self._report


def judged(monkeypatch: pytest.MonkeyPatch, said: dict[str, int], **report: int) -> Rounds:
    """A round of two messages to ten clients."""
    monkeypatch.setattr(delivery, "REST", 0)
    programs: Any = Scripted(said, {"received": 20, "wrong": 0, "disordered": 0, **report})
    rounds = Rounds()
    asyncio.run(Pair(programs, {}, programs).round(Work("", "broadcast", 2), rounds))
    return rounds


def test_a_round_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost, doubled and unheard messages make it wrong; disorder is counted: others may have it."""
    assert judged(monkeypatch, {"sends unheard": 0}).wrong == ""
    assert "3 sends unheard" in judged(monkeypatch, {"sends unheard": 3}).wrong
    assert "19 of 20" in judged(monkeypatch, {}, received=19).wrong
    assert "1 messages doubled" in judged(monkeypatch, {}, wrong=1).wrong
    late = judged(monkeypatch, {}, disordered=4)
    assert (late.wrong, late.disordered, late.deliveries) == ("", 4, 20)
    assert delivery.row("", "", late).wrong


def test_out_of_order_is_a_fault_where_order_is_promised() -> None:
    """As everything else that is wrong with a report."""
    report = {"received": 5, "wrong": 0, "disordered": 2}
    assert fault(report, 5) == "WRONG: 2 messages out of order"
