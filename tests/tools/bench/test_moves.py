"""The figures of the bench of moves, from numbers that clients have checked; and one small move."""

import shutil
from collections import Counter
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError, SendResult
from tests.support import async_test
from tools.bench import disturbances, moves
from tools.bench.__main__ import _parser, _settings
from tools.bench.disturbances import room_of
from tools.bench.moves import Senders, Trial, rows

REPORT = {
    "got": 10,
    "lost": 1,
    "untold": 1,
    "doubtful": 0,
    "twice": 2,
    "most_twice": 2,
    "late": 0,
    "codes": {"1012": 3},
    "words": {"True": 3},
    "whole": [0.01] * 98 + [1.0, 1.0],
}


def test_a_lost_message_of_which_nobody_was_told_is_a_fault() -> None:
    """Repeats are not: a killed node cannot know what its clients had."""
    trial = Trial(REPORT, Counter(broadcast=4), 0.5)
    made = {row.what: row for row in rows("restart", trial)}
    lost = made["restart: messages lost"]
    assert lost.wrong == "WRONG: 1 lost of which nobody was told"
    assert lost.note == (
        "of 10 received; sent: 4 × broadcast; 0 more did not come, as their sender was told; "
        "the machine 50 % busy"
    )
    assert [row.wrong for row in made.values()][1:] == [""] * 5
    assert made["restart: messages twice"].samples == [2.0]
    assert made["restart: from reconnect until whole, p50"].samples == [10.0]
    assert made["restart: from reconnect until whole, p99"].samples == [1000.0]


def test_a_lost_message_that_was_told_is_none() -> None:
    """It is counted all the same; where nobody came back there is no time."""
    first, *others = rows("cut", Trial({**REPORT, "untold": 0, "whole": []}, Counter()))
    assert (first.samples, first.wrong) == ([1.0], "")
    assert [row.what.partition(": ")[2] for row in others] == [
        "of these, clients were not told",
        "messages twice",
        "messages out of order",
    ]


def test_rooms_have_fifty_clients() -> None:
    """The first fifty are in the first one."""
    assert [room_of(at) for at in (0, 49, 50)] == ["room-0", "room-0", "room-1"]


class Answers:
    """In place of a publisher: its answers, one after another."""

    def __init__(self, *answers: SendResult | Exception) -> None:
        self.answers = list(answers)
        self.texts: list[str] = []

    async def send(self, namespace: str, id: str, message: str) -> SendResult:
        self.texts.append(message)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@async_test
async def test_numbers_are_used_again_where_nothing_was_sent() -> None:
    """A message that may have been sent has its number, and nobody relies on it."""
    lost = [BackplaneUnavailableError("", maybe_executed=maybe) for maybe in (False, True)]
    publisher: Any = Answers(
        *(SendResult.ROUTED, SendResult.ABSENT, lost[0]),
        *(SendResult.UNREACHABLE, lost[1], SendResult.PARKED),
    )
    senders = Senders(publisher, [("room-0", "a")])
    for _ in range(6):
        await senders._send("room-0", "a")
    assert [text.split(" ")[2] for text in publisher.texts] == ["1", "2", "2", "2", "3", "4"]
    assert senders.alone["a"] == 4
    assert senders.unsure == [("t", "a", 2), ("t", "a", 3)]
    assert senders.results["sent, perhaps"] == senders.results["not sent"] == 1


@pytest.mark.real
@pytest.mark.skipif(shutil.which("haproxy") is None, reason="needs haproxy")
@pytest.mark.parametrize("at", [3, 5], ids=["cut from Redis", "without a network"])
@async_test
async def test_few_clients_lose_nothing(at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disturbance as it is measured, with few clients who lose less time."""
    monkeypatch.setattr(disturbances, "SILENCE", 1.0)
    settings = _settings(_parser().parse_args(["--quick", "--restarted", "16"]))
    one = disturbances.ALL[at]
    trial = await moves._trial(one, settings)
    assert (trial.report["untold"], trial.report["lost"]) == (0, 0)
    assert trial.report["got"] > 0
    if one.far:
        assert trial.report["late"] == 0
        assert trial.report["words"] == {"True": 2}
        assert len(trial.report["whole"]) == 2
    assert not any(row.wrong for row in rows(one.what, trial))
