"""Runs the cases of a target one after another, and measures what they cost.

Time is CPU time of this thread, so that a busy machine slows nothing down: of one case, where it is
a plain call, and of one turn of the event loop, during which nobody else gets theirs. What Python's
collector takes stands apart: no single case causes it, but the many connections before it.
"""

import asyncio
import contextlib
import gc
import logging
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from cluster_pool.core.ids import shown
from tools.harness.linux import resident_bytes

Case = TypeVar("Case")

SHOWN = 400
"""Characters of a failing case that are shown."""
KEPT = 20
"""Failures that are kept; the others are counted."""


class Plain(Protocol[Case]):
    """Something that parses, called case by case.

    ``judge`` gives True for a case that was accepted, False for one that was refused in the way
    that is documented, and raises for everything else.
    """

    name: str
    share: float
    """The share of the cases of a run over all targets."""

    def make(self, random: Random) -> Case:
        """The case that these random numbers mean."""

    def judge(self, case: Case) -> bool: ...


@runtime_checkable
class Running(Protocol[Case]):
    """The same through a running node, which is there while this is entered."""

    name: str
    share: float

    def make(self, random: Random) -> Case:
        """The case that these random numbers mean."""

    async def judge(self, case: Case) -> bool: ...

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *error: object) -> None: ...


Target = Plain[Any] | Running[Any]


@dataclass
class Result:
    """The outcome of the cases of one target."""

    name: str
    cases: int = 0
    accepted: int = 0
    refused: int = 0
    longest_case_us: float = 0.0
    longest_turn_us: float = 0.0
    in_case: int = 0
    """Which had the longest turn."""
    peak_mib: float = 0.0
    failed: int = 0
    failures: list[str] = field(default_factory=list)

    def judged(self, accepted: bool) -> None:
        if accepted:
            self.accepted += 1
        else:
            self.refused += 1

    def turn(self, took_us: float, number: int) -> None:
        if took_us > self.longest_turn_us:
            self.longest_turn_us, self.in_case = took_us, number

    def fail(self, case: str, error: BaseException) -> None:
        self.failed += 1
        if len(self.failures) < KEPT:
            self.failures.append(f"{case}: {type(error).__name__}: {error}"[: 2 * SHOWN])


class Collector:
    """The time of Python's garbage collector inside the context."""

    def __init__(self) -> None:
        self.spent_ns = 0
        self._began = 0

    def cpu_ns(self) -> int:
        """CPU time of this thread, the collector's left out."""
        return time.thread_time_ns() - self.spent_ns

    def __enter__(self) -> Self:
        gc.callbacks.append(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        gc.callbacks.remove(self._note)

    def _note(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time_ns()
            return
        self.spent_ns += time.thread_time_ns() - self._began


class WatchedLoop(asyncio.SelectorEventLoop):
    """An event loop that knows its longest turn. Waiting for sockets is no part of one."""

    def __init__(self, collector: Collector) -> None:
        super().__init__()
        self.longest_turn_us = 0.0
        self.collector = collector

    def _run_once(self) -> None:
        began = self.collector.cpu_ns()
        super()._run_once()  # type: ignore[misc]  # the turn of BaseEventLoop, not in its stub
        took = (self.collector.cpu_ns() - began) / 1000
        self.longest_turn_us = max(self.longest_turn_us, took)


def run(target: Target, seed: int, numbers: range) -> Result:
    """Run the cases with these numbers."""
    result = Result(target.name)
    with _errors_logged() as logged, Collector() as collector:
        if isinstance(target, Running):
            with asyncio.Runner(loop_factory=lambda: WatchedLoop(collector)) as runner:
                runner.run(_run_running(target, seed, numbers, result))
        else:
            _run_plain(target, seed, numbers, result, collector)
    for text in logged:
        result.fail("in the log", RuntimeError(text))
    return result


def _run_plain(
    target: Plain[Any], seed: int, numbers: range, result: Result, collector: Collector
) -> None:
    with _peak_memory(result):
        for number in numbers:
            case = target.make(_random(target, seed, number))
            with _judged(result, seed, number, case, collector) as judged:
                judged(target.judge(case))
            result.turn(result.longest_case_us, number)


async def _run_running(target: Running[Any], seed: int, numbers: range, result: Result) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, WatchedLoop)
    async with target:
        await asyncio.sleep(0)  # the turn in which it was entered ends here
        with _peak_memory(result):
            for number in numbers:
                case = target.make(_random(target, seed, number))
                await asyncio.sleep(0)
                loop.longest_turn_us = 0.0
                with _judged(result, seed, number, case, loop.collector) as judged:
                    judged(await target.judge(case))
                    await asyncio.sleep(0)
                result.turn(loop.longest_turn_us, number)


def _random(target: Target, seed: int, number: int) -> Random:
    return Random(f"{seed} {target.name} {number}")


@contextlib.contextmanager
def _judged(
    result: Result, seed: int, number: int, case: object, collector: Collector
) -> Iterator[Callable[[bool], None]]:
    """Count one case: what is called with its outcome, or else what was raised."""
    began = collector.cpu_ns()
    try:
        yield result.judged
    except Exception as error:
        replay = f"--target {result.name} --seed {seed} --case {number}"
        result.fail(f"{replay} {shown(case, SHOWN)}", error)
    took = (collector.cpu_ns() - began) / 1000
    result.longest_case_us = max(result.longest_case_us, took)
    result.cases += 1


@contextlib.contextmanager
def _peak_memory(result: Result) -> Iterator[None]:
    """By how much the resident memory of this process rose at most."""
    before = resident_bytes()
    with contextlib.suppress(OSError), open("/proc/self/clear_refs", "w") as control:
        control.write("5")  # the high-water mark begins anew (proc_pid_clear_refs(5))
    yield
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    result.peak_mib = max(0.0, (highest - before) / 2**20)


@contextlib.contextmanager
def _errors_logged() -> Iterator[list[str]]:
    """Collect ERROR messages of our loggers and the event loop: foreign bytes must cause none."""
    said: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if len(said) < KEPT:
                said.append(logging.Formatter().format(record)[-2 * SHOWN :])

    # It tells of every request that is none, with a traceback.
    logging.getLogger("websockets.server").setLevel(logging.CRITICAL)
    keeper = Keeper(logging.ERROR)
    loggers = [logging.getLogger(name) for name in ("cluster_pool", "asyncio")]
    for logger in loggers:
        logger.addHandler(keeper)
    try:
        yield said
    finally:
        for logger in loggers:
            logger.removeHandler(keeper)


def shares(targets: Sequence[Target], cases: int) -> list[int]:
    """How many of ``cases`` each target gets; at least one."""
    whole = sum(target.share for target in targets)
    return [max(1, round(cases * target.share / whole)) for target in targets]
