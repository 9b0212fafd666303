"""The command line as a sender: each run is told with its answer."""

from typing import Any

import pytest

from tests.support import async_test, eventually
from tools.chaos.command_line import CommandLine
from tools.chaos.ledger import Ledger
from tools.harness.servers import RedisServer

pytestmark = pytest.mark.real

SEED = 6
"""It begins with a broadcast and a confirmed send."""


class Told(Ledger):
    """Keeps the outcomes of calls."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: list[str] = []

    def told(self, sender: str, what: str, fields: list[Any]) -> None:
        super().told(sender, what, fields)
        if what == "ended":
            self.outcomes.append(fields[-1])


async def _run(redis: str, times: int) -> Told:
    ledger = Told()
    commands = CommandLine(redis, [("red", "alice")], ledger, seed=SEED)
    commands.begin(0.01)
    await eventually(lambda: len(ledger.outcomes) >= times, 60)
    await commands.end()
    return ledger


@async_test
async def test_the_answers_of_commands_are_told() -> None:
    """The namespace they send to is empty."""
    with RedisServer() as redis:
        ledger = await _run(redis.url, 2)
    assert set(ledger.outcomes) == {"absent", "unheard"}
    assert ledger.wrong == []


@async_test
async def test_a_command_that_reaches_no_redis_is_no_failure_by_itself() -> None:
    """Only the account knows whether one was to be reached."""
    ledger = await _run("unix:///nowhere", 1)
    assert set(ledger.outcomes) == {"unknown"}
    assert ledger.wrong == []
