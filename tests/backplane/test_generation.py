"""The current generation; calls that wait for one, or use one that has ended."""

import asyncio
from itertools import count

import pytest

from cluster_pool import BackplaneUnavailableError, PoolClosedError
from cluster_pool.backplane.calls import deadline_in
from cluster_pool.backplane.generation import Generations
from cluster_pool.backplane.outage import Outage
from tests.clusters import Backend
from tests.support import async_test, eventually


@async_test
async def test_a_generation_that_has_ended_sends_nothing() -> None:
    """A call on it fails as not executed; the next generation works."""
    async with Backend(None).pools(1) as (one,):
        shard = one._parts.backplane.shard
        generation = await shard.connected(deadline_in(5))
        shard.begin_anew("a test wants it")
        await eventually(lambda: not generation.lasts)
        with pytest.raises(BackplaneUnavailableError, match="a test wants it") as raised:
            await generation.commands("").call("PING")
        assert not raised.value.maybe_executed
        following = await shard.connected(deadline_in(5))
        assert following is not generation
        assert following.lasts


@async_test
async def test_a_call_that_waits_for_a_generation_is_told_why_there_is_none() -> None:
    """At its deadline with the reason; at once when the shard is closed."""
    outage = Outage("redis://nowhere")
    generations = Generations("start", outage, count(1))
    generations.open()
    with pytest.raises(BackplaneUnavailableError, match="no link to Redis at redis://nowhere yet"):
        await generations.connected(deadline_in(0.01))
    outage.fail("link", "it burns")
    with pytest.raises(BackplaneUnavailableError, match="it burns"):
        await generations.connected_soon(deadline_in(60))
    waiting = asyncio.create_task(generations.connected(None))
    await asyncio.sleep(0)
    generations.close()
    with pytest.raises(PoolClosedError):
        await waiting


@async_test
async def test_senders_are_named_by_start_and_generation() -> None:
    """Receivers then recognise messages that an older connection still carries."""
    generations = Generations("start", Outage("nowhere"), count(1))
    generations.count()
    generations.count()
    assert (generations.number, generations.sender) == (2, "start 2")


@async_test
async def test_a_call_that_waits_for_a_redis_whose_slots_move_may_ask_the_other_one() -> None:
    """Nothing of it was executed, and the pool is not closed."""
    generations = Generations("start", Outage("nowhere"), count(1))
    generations.open()
    waiting = asyncio.create_task(generations.connected(None))
    await asyncio.sleep(0)
    generations.close(moved=True)
    with pytest.raises(BackplaneUnavailableError, match="elsewhere") as raised:
        await waiting
    assert not raised.value.maybe_executed


@async_test
async def test_generations_of_one_start_are_numbered_together() -> None:
    """A shard that takes the place of another one is not taken for an older link of its node."""
    numbers = count(1)
    first = Generations("start", Outage("here"), numbers)
    first.count()
    first.count()
    second = Generations("start", Outage("there"), numbers)
    second.count()
    assert second.number > first.number
