"""Rows of results: medians with their spread, as a Markdown table and as JSON."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tools.harness.markdown import table


@dataclass
class Row:
    """One measured number.

    Attributes:
        what: in words.
        loop: the event loop of the nodes, "" where none matters.
        unit: of the samples.
        samples: one per round; the table shows their median and their range.
        floors: of the same rounds, to which the samples compare one by one.
        wrong: what the check found missing, "" when everything arrived.
        note: how the number is made up.
        parts: of the median, by process.
        group, name: what is compared, and who, for a chart of bars.
        series: points (seconds, value) by name, for a chart of lines with a dashed ``limit``.
    """

    what: str
    unit: str
    samples: Sequence[float]
    loop: str = ""
    floors: Sequence[float] = ()
    wrong: str = ""
    note: str = ""
    parts: dict[str, float] = field(default_factory=dict)
    group: str = ""
    name: str = ""
    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    limit: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def ratio(self) -> float | None:
        """The median of what each sample is to the floor of its own round."""
        if not self.floors or not self.samples:
            return None
        return statistics.median(
            sample / floor for sample, floor in zip(self.samples, self.floors, strict=True)
        )

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        median = self.median if self.samples else None
        return {**asdict(self), "median": median, "ratio": self.ratio}

    def cells(self) -> list[str]:
        """For the table."""
        if not self.samples:
            return [self.what, self.loop, "not measured", "", "", self.wrong or self.note]
        low, high = min(self.samples), max(self.samples)
        number = f"{_short(self.median)} {self.unit}"
        spread = f"{_short(low)} to {_short(high)}" if len(self.samples) > 1 else ""
        ratio = "" if self.ratio is None else f"{self.ratio:.2f} ×"
        parts = ", ".join(f"{name} {_short(value)}" for name, value in self.parts.items())
        note = "; ".join(text for text in (self.wrong, parts, self.note) if text)
        return [self.what, self.loop, number, spread, ratio, note]


def _short(number: float) -> str:
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def markdown(rows: Sequence[Row]) -> str:
    """The table of all rows."""
    head = ["what", "loop", "median", "range", "to the floor", "how"]
    return table([head, *[row.cells() for row in rows]])


def as_json(about: dict[str, str], rows: Sequence[Row]) -> str:
    """Everything measured, as one JSON object."""
    return json.dumps({**about, "rows": [row.as_dict() for row in rows]}, indent=2) + "\n"
