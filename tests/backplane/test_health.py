"""How a start judges the Redis that it is connected to."""

import asyncio
from itertools import count
from typing import Any

import pytest

from cluster_pool import BackplaneUnavailableError
from cluster_pool.backplane.generation import Generations
from cluster_pool.backplane.health import PROBES_LOST, Health
from cluster_pool.backplane.outage import Outage
from cluster_pool.core.config import Timing
from tests.backplane.contexts import context_of
from tests.support import async_test

PROBE = 0.02


class Commands:
    """Answers each command with a prepared reply."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def call(self, word: str, *_: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.asked.append(word)
        if word in self.answers:
            future.set_result(self.answers[word])
        return future

    def script(self, call: Any) -> asyncio.Future[Any]:
        return self.call(call.name)


def made(*, holds: bool = True) -> tuple[Health, asyncio.Event]:
    """Health without any Redis, and the event that reports a heard probe."""
    probed = asyncio.Event()
    generations = Generations("start", Outage("redis://here"), count(1))
    timing = Timing(probe=PROBE)
    health = Health(context_of(timing=timing, holds=holds), generations, probed)
    return health, probed


@async_test
async def test_a_silent_redis_is_left_after_three_probes() -> None:
    """The error tells for how long it was silent."""
    health, _ = made()
    with pytest.raises(BackplaneUnavailableError, match=f"for {PROBES_LOST * PROBE:g} s"):
        await health.hear_time(Commands())  # type: ignore[arg-type]


@async_test
async def test_a_start_that_does_not_hear_its_probe_is_deaf() -> None:
    """Redis has published it, but it has not come back."""
    health, _ = made()
    with pytest.raises(BackplaneUnavailableError, match="deaf"):
        await health.probe(Commands(publish=[b"0 0", 1]), "channel")  # type: ignore[arg-type]


@async_test
async def test_a_cluster_is_refused_by_name() -> None:
    """Half of our commands would work there."""
    health, _ = made()
    with pytest.raises(BackplaneUnavailableError, match="redis://here: this is a node of a Redis"):
        await health.check_kind(Commands(HELLO=[b"mode", b"cluster"]))  # type: ignore[arg-type]


@async_test
async def test_another_epoch_means_that_state_was_lost() -> None:
    """The first epoch that is read is no loss."""
    health, _ = made(holds=False)
    assert not await health.state_lost(Commands(GET=b"1"))  # type: ignore[arg-type]
    assert not await health.state_lost(Commands(GET=b"1"))  # type: ignore[arg-type]
    assert await health.state_lost(Commands(GET=b"2"))  # type: ignore[arg-type]
    assert health.epoch == "2"


@async_test
async def test_a_restored_redis_gets_a_new_epoch_from_a_node_with_connections() -> None:
    """It has the old epoch, but lacks the mark that its process was given."""
    health, _ = made()
    commands: Any = Commands(GET=b"1", SCRIPT=[0], renew_epoch=b"9")
    assert not await health.state_lost(commands)
    assert health.epoch == "9"
    assert "renew_epoch" in commands.asked
