"""Helpers for all tests."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec

P = ParamSpec("P")

LONGEST = 240.0
"""Seconds for one test, on a machine that is too busy for all of them."""


def async_test(test: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Run a coroutine test on a loop of its own, which must be empty of tasks at the end."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        run_alone(test(*args, **kwargs), asyncio.new_event_loop)

    return run


def run_alone(test: Awaitable[None], new_loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """Run a test on a loop of its own, which must be empty of tasks at the end."""

    async def main() -> None:
        await asyncio.wait_for(test, LONGEST)
        rest = await leftover_tasks()
        assert not rest, f"tasks left behind: {rest}"

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())


async def leftover_tasks() -> list[asyncio.Task[Any]]:
    """Tasks other than this one that do not end by themselves, a sweep's period being a second."""
    deadline = time.monotonic() + 3
    while True:
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        if not rest or time.monotonic() > deadline:
            return rest
        await asyncio.sleep(0.01)


async def eventually(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    """Wait until ``condition`` is true (it may be async) and return its value."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s"
        await asyncio.sleep(0.01)
