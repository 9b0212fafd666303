"""A few thousand cases of each target of scripts/fuzz, and the faults that it must find."""

import asyncio
import time
from random import Random
from typing import Self

import pytest

from tools.fuzz.harness import run
from tools.fuzz.targets import MOST_TURN_MS, NO_TURN, TARGETS

SEED = 20_000
CASES = {
    **dict.fromkeys(("items", "header", "raw", "requests", "settings", "urls"), 4000),
    **dict.fromkeys(("channels", "sealed", "inbound"), 1500),
    **dict.fromkeys(("http", "frames"), 400),
    "commands": 200,
}
NEVER_REFUSED = ("raw",)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_hostile_input_is_accepted_or_refused(name: str) -> None:
    """It is accepted, or refused as documented; no turn of the loop is long, and memory is bounded.

    Times are of CPU, and may be three times as long here as scripts/fuzz allows.
    """
    result = run(TARGETS[name](), SEED, range(CASES[name]))
    assert result.failures == []
    assert result.accepted
    assert result.refused or name in NEVER_REFUSED
    assert result.longest_turn_us < 3 * MOST_TURN_MS * 1000 or name in NO_TURN
    assert result.peak_mib < 256


class Fragile:
    """Refuses odd numbers, and breaks on seven."""

    name, share = "fragile", 1.0

    def make(self, random: Random) -> int:
        return random.randrange(10)

    def judge(self, case: int) -> bool:
        assert case != 7
        return case % 2 == 0


class Greedy:
    """Holds the loop for 60 ms of CPU, and 64 MiB."""

    name, share = "greedy", 1.0

    def make(self, random: Random) -> bytes:
        return b""

    async def judge(self, case: bytes) -> bool:
        held = bytearray(64 * 1024 * 1024)
        held[::4096] = b"x" * len(held[::4096])
        end = time.thread_time() + 0.06
        while time.thread_time() < end:
            pass
        await asyncio.sleep(0)
        return bool(held)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None: ...


def test_a_failure_can_be_repeated() -> None:
    """It names the case, which alone fails again; the others are counted."""
    result = run(Fragile(), 3, range(200))
    assert (result.cases, result.accepted + result.refused + result.failed) == (200, 200)
    assert result.failed > 5
    words = result.failures[0].split()
    number = int(words[words.index("--case") + 1])
    again = run(Fragile(), 3, range(number, number + 1))
    assert again.failures == result.failures[:1]


def test_the_cost_of_a_case_is_noticed() -> None:
    """Its turn of the loop, and its peak of memory."""
    result = run(Greedy(), 1, range(1))
    assert result.longest_turn_us > MOST_TURN_MS * 1000
    assert result.peak_mib > 50
