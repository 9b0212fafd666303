"""Programs that are asked over standard input, and what they say by themselves."""

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support import async_test
from tools.harness.programs import Program, ProgramEndedError, program

pytestmark = pytest.mark.real

PROGRAM = """
import asyncio
from tools.harness.obeying import answer, obey_object, tell

class Commands:
    async def add(self, one, two):
        tell("adding", [one, two])
        return one + two

    async def end(self):
        raise SystemExit(3)

answer("ready")
asyncio.run(obey_object(Commands()))
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "adding.py").write_text(PROGRAM)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "adding"


@async_test
async def test_a_program_answers_and_tells_in_order(module: str) -> None:
    """Its own reports come apart from its answers; it ends with status 0 when stopped."""
    told: list[Any] = []

    def on_told(what: str, fields: list[Any]) -> None:
        told.append((what, fields))

    running = await Program.start(module, on_told=on_told)
    assert running.hello == "ready"
    assert await running.ask("add", one=1, two=2) == 3
    assert told == [("adding", [1, 2])]
    assert await running.stop() == ""


@async_test
async def test_a_program_that_ends_by_itself_is_an_error(module: str) -> None:
    """For who waits for its answer, and for who asks later; stopping tells its status."""
    running = await Program.start(module)
    for _ in range(2):
        with pytest.raises(ProgramEndedError, match="ended"):
            await running.ask("end")
    assert "3" in await running.stop()


@async_test
async def test_a_frozen_program_does_not_answer_and_can_be_stopped(module: str) -> None:
    """It is given up after a while, and thawed to stop."""
    async with program(module) as running:
        running.freeze()
        running.patience = 0.2
        with pytest.raises(ProgramEndedError, match="does not answer"):
            await running.ask("add", one=1, two=2)
        running.thaw()
        await asyncio.sleep(0)
    with pytest.raises(ProcessLookupError):
        os.kill(running.pid, signal.SIGCONT)
