"""Runs the cases of a target one after another, and measures what they cost.

Time is CPU time of this thread, so that a busy machine slows nothing down: of one case, where it is
a plain call, and of one turn of the event loop, during which nobody else gets theirs.
"""

import asyncio
import contextlib
import logging
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol, TypeVar

from cluster_pool.core.ids import shown

Case = TypeVar("Case")

SHOWN = 400
"""Characters of a failing case that are shown."""
KEPT = 20
"""Failures that are kept; the others are counted."""


class Target(Protocol[Case]):
    """Something that parses. Entered before the first case and left after the last.

    ``judge`` gives True for a case that was accepted, False for one that was refused in the way
    that is documented, and raises for everything else.
    """

    name: str
    share: float
    running: bool
    """Whether the cases go through a running node, so that a turn of the loop means something."""

    def make(self, random: Random) -> Case: ...

    async def judge(self, case: Case) -> bool: ...

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *error: object) -> None: ...


class Plain:
    """A target that is a plain call."""

    running = False

    async def __aenter__(self) -> None: ...

    async def __aexit__(self, *error: object) -> None: ...


@dataclass
class Result:
    """What became of the cases of one target."""

    name: str
    cases: int = 0
    accepted: int = 0
    refused: int = 0
    longest_case_us: float = 0.0
    longest_turn_us: float = 0.0
    peak_mib: float = 0.0
    failed: int = 0
    failures: list[str] = field(default_factory=list)

    def fail(self, case: str, error: BaseException) -> None:
        self.failed += 1
        if len(self.failures) < KEPT:
            self.failures.append(f"{case}: {type(error).__name__}: {error}"[: 2 * SHOWN])


class WatchedLoop(asyncio.SelectorEventLoop):
    """An event loop that knows its longest turn. Waiting for sockets is no part of one."""

    longest_turn_us = 0.0

    def _run_once(self) -> None:
        began = time.thread_time_ns()
        super()._run_once()  # type: ignore[misc]  # the turn of BaseEventLoop, not in its stub
        self.longest_turn_us = max(self.longest_turn_us, (time.thread_time_ns() - began) / 1000)


def run(target: Target[Any], seed: int, numbers: range) -> Result:
    """Run the cases with these numbers, on a loop of its own."""
    result = Result(target.name)
    with asyncio.Runner(loop_factory=WatchedLoop) as runner, _errors_logged() as logged:
        loop = runner.get_loop()
        assert isinstance(loop, WatchedLoop)
        runner.run(_run(target, seed, numbers, result, loop))
        for text in logged:
            result.fail("in the log", RuntimeError(text))
    return result


async def _run(
    target: Target[Any], seed: int, numbers: range, result: Result, loop: WatchedLoop
) -> None:
    async with target:
        await asyncio.sleep(0)  # the turn in which it was entered ends here
        loop.longest_turn_us = 0.0
        with _peak_memory(result):
            for number in numbers:
                case = target.make(Random(f"{seed} {target.name} {number}"))
                began = time.thread_time_ns()
                try:
                    if await target.judge(case):
                        result.accepted += 1
                    else:
                        result.refused += 1
                except Exception as error:
                    replay = f"--target {target.name} --seed {seed} --case {number}"
                    result.fail(f"{replay} {shown(case, SHOWN)}", error)
                took = (time.thread_time_ns() - began) / 1000
                result.longest_case_us = max(result.longest_case_us, took)
                result.cases += 1
                await asyncio.sleep(0)
        if target.running:
            result.longest_turn_us = loop.longest_turn_us
        else:
            result.longest_turn_us = result.longest_case_us


@contextlib.contextmanager
def _peak_memory(result: Result) -> Any:
    """By how much the resident memory of this process rose at most, where Linux tells."""
    try:
        with open("/proc/self/clear_refs", "w") as control:
            control.write("5")  # the high-water mark begins anew (proc_pid_clear_refs(5))
    except OSError:
        before = _status("VmHWM:")
    else:
        before = _status("VmRSS:")
    yield
    result.peak_mib = max(0.0, (_status("VmHWM:") - before) / 1024)


def _status(name: str) -> int:
    with open("/proc/self/status") as lines:
        for line in lines:
            if line.startswith(name):
                return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@contextlib.contextmanager
def _errors_logged() -> Any:
    """What our loggers and the event loop say at ERROR: somebody else's bytes must not cause it."""
    said: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if len(said) < KEPT:
                said.append(logging.Formatter().format(record)[-2 * SHOWN :])

    keeper = Keeper(logging.ERROR)
    loggers = [logging.getLogger(name) for name in ("cluster_pool", "asyncio")]
    for logger in loggers:
        logger.addHandler(keeper)
    try:
        yield said
    finally:
        for logger in loggers:
            logger.removeHandler(keeper)


def shares(targets: list[Target[Any]], cases: int) -> list[int]:
    """How many of ``cases`` each target gets; at least one."""
    whole = sum(target.share for target in targets)
    return [max(1, round(cases * target.share / whole)) for target in targets]


Make = Callable[[], Target[Any]]
