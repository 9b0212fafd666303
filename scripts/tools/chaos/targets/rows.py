"""A row of the table of targets."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from tools.harness.markdown import table


@dataclass(frozen=True)
class Row:
    """What was measured, several times.

    Attributes:
        fault, what: what was broken, and what is measured from then on.
        values: one for each time.
        target: that every value must keep; None for a row that only tells.
        unit: of the values.
        wrong: whatever must not be and was; the row then fails.
    """

    fault: str
    what: str
    values: Sequence[float]
    target: float | None = None
    unit: str = "s"
    wrong: Sequence[str] = field(default_factory=list)

    @property
    def kept(self) -> bool:
        """Whether nothing was wrong and the target was kept each time."""
        return not self.wrong and (self.target is None or max(self.values) <= self.target)

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def markdown(rows: Sequence[Row]) -> str:
    """The table of all rows."""
    lines = [["fault", "measured", "target", "median", "worst", "times", ""]]
    for row in rows:
        target = "" if row.target is None else f"≤ {row.target:g} {row.unit}"
        median, worst = statistics.median(row.values), max(row.values)
        numbers = (f"{median:.3g} {row.unit}", f"{worst:.3g} {row.unit}", str(len(row.values)))
        lines.append([row.fault, row.what, target, *numbers, "" if row.kept else "**MISSED**"])
        lines += [["", f"WRONG: {text}", "", "", "", "", ""] for text in row.wrong]
    return table(lines)
