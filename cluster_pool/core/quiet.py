"""Limits log lines that strangers or storms can cause; those left out are counted."""

from collections.abc import Hashable
from typing import Final

PERIOD: Final = 10.0
"""Seconds between two lines about one subject."""
LINES: Final = 10
"""Lines in one period, about all subjects together."""
_SUBJECTS: Final = 1024


class Quiet:
    """Decides which of many equal lines are logged: one per subject and period, ``LINES`` in all.

    Lines that are left out are counted in the next line about their subject. A subject that has
    not come up for long is forgotten, with its count.

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
        """It happened once more. Returns how many times one line now reports, 0 for no line."""
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
    """The end of a line that reports more than one time."""
    return "" if times == 1 else f" (and {times - 1} more like it)"


def fault(error: BaseException) -> Hashable:
    """The identity of a fault: its type, and where it was raised."""
    at = error.__traceback__
    while at is not None and at.tb_next is not None:
        at = at.tb_next
    return type(error), None if at is None else (at.tb_frame.f_code.co_filename, at.tb_lineno)
