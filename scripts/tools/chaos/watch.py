"""A look at every call: whether it is answered by its deadline and a second.

Time in which this process did not run, because it was stopped or starved, is no time in which a
call could be answered; so it does not count.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

GRACE = 1.0
"""Seconds after its deadline in which a call must be answered."""
LOOK = 0.1
STEP = 0.25
"""Seconds, at most, that count between two looks."""


class RunningClock:
    """Seconds for which this process has run, as long as it is read every ``STEP`` or sooner."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._read = now()
        self._ran = 0.0

    def time(self) -> float:
        """Read it."""
        now = self._now()
        self._ran += min(now - self._read, STEP)
        self._read = now
        return self._ran


@dataclass(eq=False)
class Watched:
    """A call that is not answered yet; ``begun`` and ``due`` are times of the running clock."""

    about: str
    task: "asyncio.Task[object] | None"
    begun: float
    due: float


class Watch:
    """Tells of each call that is not answered in time, once, and cancels it.

    Args:
        tell: is told what call it was, and for how many seconds it was not answered.
    """

    def __init__(
        self, tell: Callable[[str, float], None], clock: RunningClock | None = None
    ) -> None:
        self._tell = tell
        self._clock = clock or RunningClock()
        self._open: dict[Watched, None] = {}
        self.watched = 0

    def begin(self, about: str, timeout: float) -> Watched:
        """A call begins in the running task."""
        now = self._clock.time()
        call = Watched(about, _running_task(), now, now + timeout + GRACE)
        self._open[call] = None
        self.watched += 1
        return call

    def end(self, call: Watched) -> None:
        """It was answered, or it was given up."""
        self._open.pop(call, None)

    def look(self) -> None:
        """Find what is overdue."""
        now = self._clock.time()
        for call in [one for one in self._open if one.due < now]:
            del self._open[call]
            self._tell(call.about, now - call.begun)
            if call.task is not None:
                call.task.cancel()

    @property
    def open(self) -> int:
        """Calls that are neither answered nor overdue."""
        return len(self._open)

    async def run(self) -> None:
        """Look again and again."""
        while True:
            self.look()
            await asyncio.sleep(LOOK)


def _running_task() -> "asyncio.Task[object] | None":
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None
