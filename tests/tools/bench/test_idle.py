"""A scenario of scripts/bench from its processes to its rows, as small as it can be."""

from dataclasses import replace

import pytest

from tests.support import async_test
from tools.bench import idle
from tools.bench.__main__ import _parser, _settings

pytestmark = pytest.mark.real


@async_test
async def test_idle_connections_are_counted_and_measured() -> None:
    """Memory, CPU and commands, and no member too few."""
    settings = _settings(_parser().parse_args(["--quick", "--idle", "50", "--rounds", "1"]))
    settings = replace(settings, idle_seconds=1.0)
    memory, cpu, commands = await idle.measure(settings, "asyncio", lambda text: None)
    assert not memory.wrong
    assert len(memory.samples) == 1
    assert cpu.parts.keys() == {"node", "Redis"}
    assert commands.median > 0
