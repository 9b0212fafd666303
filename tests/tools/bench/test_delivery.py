"""The states of a socket in scripts/bench: what is compared is in the same one."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tools.bench.__main__ import _parser, _settings
from tools.bench.cluster import Settings
from tools.bench.contest import modes
from tools.bench.delivery import QUICK, Floor, Pair, Work


def settings(*arguments: str) -> Settings:
    """As the command line gives them."""
    return _settings(_parser().parse_args(arguments))


@pytest.mark.parametrize("arguments", [(), ("--quick",)])
def test_what_is_sent_after_quiet_stays_within_the_quick_segments(arguments: list[str]) -> None:
    """Of the floor, of the broadcasts and the sends, and of our bursts, which are a write each."""
    made = settings(*arguments)
    assert max(made.messages, made.bursts) <= QUICK
    assert all(mode.rounds <= QUICK for mode in modes(made))


def test_a_stream_has_its_quick_segments_behind_it_and_their_faults_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are sent, not counted, and what went wrong among them is told."""
    sent: list[int] = []

    async def write(_: Floor, messages: int) -> tuple[dict[str, float], str]:
        sent.append(messages)
        return {"writer": float(len(sent))}, "WRONG: lost" if len(sent) == 1 else ""

    async def send(_: Pair, work: Work) -> tuple[dict[str, float], str]:
        return await write(nobody, work.rounds)

    nobody: Any = SimpleNamespace(pid=0)
    monkeypatch.setattr("tools.bench.delivery.REST", 0)
    monkeypatch.setattr(Floor, "_write", write)
    monkeypatch.setattr(Pair, "_send", send)
    for round_ in (
        lambda: Floor(nobody, nobody).round(15, stream=True),
        lambda: Pair(nobody, nobody, 0, nobody).round(Work("broadcast", 15, stream=True)),
    ):
        sent.clear()
        assert asyncio.run(round_()) == ({"writer": 2.0}, "WRONG: lost")
        assert sent == [QUICK, 15]
