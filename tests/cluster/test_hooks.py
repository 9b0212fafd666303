"""Hooks: errors and hangs of user code do not spread."""

import asyncio
import logging

import pytest

from cluster_pool import Timing
from cluster_pool.cluster.hooks import MAX_RUNNING, Hooks
from cluster_pool.core.statistics import Counters
from tests.support import async_test, eventually


@async_test
async def test_an_error_of_a_hook_is_logged_once_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Sync or async, again and again; the other handlers of the event are called."""
    counters = Counters()
    hooks = Hooks(Timing(), counters)
    seen: list[str] = []

    async def fail(value: str) -> None:
        raise RuntimeError(value)

    hooks.add("gap", lambda value: 1 / 0)
    hooks.add("gap", fail)
    hooks.add("gap", seen.append)
    with caplog.at_level(logging.ERROR, "cluster_pool"):
        for _ in range(10):
            hooks.fire("gap", "x")
        await eventually(lambda: counters.handler_errors == 20)
    assert seen == ["x"] * 10
    assert len(caplog.records) == 1
    await hooks.stop()


@async_test
async def test_a_namespace_of_the_library_that_became_empty_fires_no_hook() -> None:
    """Users know nothing of it."""
    hooks = Hooks(Timing(), Counters())
    seen: list[str] = []
    hooks.add("empty", seen.append)
    for namespace in ("~user:42", "room", "~"):
        hooks.emptied(namespace)
    assert seen == ["room"]
    await hooks.stop()


@async_test
async def test_hooks_that_hang_are_reported_and_bounded() -> None:
    """Only so many run at a time; calls above that are dropped and counted; stopping ends them."""
    counters = Counters()
    hooks = Hooks(Timing(handler=0.1), counters)
    begun: list[int] = []

    async def hang(value: int) -> None:
        begun.append(value)
        await asyncio.Event().wait()

    hooks.add("takeover", hang)
    for at in range(MAX_RUNNING + 50):
        hooks.fire("takeover", at)
    await eventually(lambda: counters.handler_hangs == MAX_RUNNING)
    assert len(begun) == MAX_RUNNING
    assert counters.handler_errors == 50
    await hooks.stop()
    hooks.fire("takeover", 0)
    await hooks.stop()
    assert len(begun) == MAX_RUNNING + 1


@async_test
async def test_a_hook_that_ignores_cancellation_does_not_keep_the_pool_from_stopping() -> None:
    """It swallows its cancellation; the pool stops all the same."""
    hooks = Hooks(Timing(), Counters())
    let_go = asyncio.Event()

    async def stubborn(value: int) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await let_go.wait()

    hooks.add("gap", stubborn)
    hooks.fire("gap", 1)
    await asyncio.sleep(0)
    await asyncio.wait_for(hooks.stop(), 10)
    let_go.set()
