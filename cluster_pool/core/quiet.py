"""Keeping the log quiet: what a stranger or a storm can cause is said now and then, and counted."""

from collections.abc import Hashable
from typing import Final

PERIOD: Final = 10.0
"""Seconds between two lines about one subject."""
LINES: Final = 10
"""Lines in one period, whatever they are about."""
_SUBJECTS: Final = 1024


class Quiet:
    """Decides which of many equal lines are logged: one per subject and period, ``LINES`` in all.

    What is not said is counted for the next line about its subject. A subject that is not heard of
    for long is forgotten, and what was not said about it.

    Args:
        period: seconds.
    """

    __slots__ = ("_ends", "_left", "_period", "_subjects")

    def __init__(self, period: float = PERIOD) -> None:
        self._period = period
        self._subjects: dict[Hashable, tuple[float, int]] = {}
        self._left = LINES
        self._ends = 0.0

    def due(self, subject: Hashable, now: float) -> int:
        """It has happened once more; gives for how many a line is to be logged now, 0 for none."""
        if now >= self._ends:
            self._ends, self._left = now + self._period, LINES
        again_at, unsaid = self._subjects.pop(subject, (0.0, 0))
        unsaid += 1
        say = now >= again_at and self._left > 0
        if say:
            self._left -= 1
        self._subjects[subject] = (now + self._period, 0) if say else (again_at, unsaid)
        if len(self._subjects) > _SUBJECTS:
            del self._subjects[next(iter(self._subjects))]
        return unsaid if say else 0


def others(times: int) -> str:
    """What a line says at its end when it stands for more than one."""
    return "" if times == 1 else f" (and {times - 1} more like it)"


def fault(error: BaseException) -> Hashable:
    """What tells one fault from another: its type, and where it was raised."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return type(error), None if at is None else (at.tb_frame.f_code.co_filename, at.tb_lineno)
