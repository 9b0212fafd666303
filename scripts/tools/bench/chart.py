"""Charts as SVG text, from numbers alone: bars beside a floor, and lines over time.

Nothing is read or written here, and nothing is needed but the standard library. A chart brings its
own background, and is light or dark as its reader's system is. What both kinds of chart share comes
first: a scale, the shapes, the frame; a new kind is a function that puts them together.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from textwrap import shorten
from xml.sax.saxutils import escape, quoteattr

WIDTH = 840
MARGIN = 24
LINE = 18
"""Height of a line of text."""
LETTER = 7.2
"""About the width of a letter of 13 px: nothing here can measure a font."""
DECADES = 2
"""Values that span as many powers of ten are drawn on a logarithmic scale."""
COLOURS = (
    *(("#1f6feb", "#58a6ff"), ("#c2410c", "#ff9b50"), ("#18794e", "#3fbf7f")),
    *(("#9333ea", "#c297ff"), ("#b4690e", "#e3b341"), ("#be185d", "#ff7bac")),
)
"""Of series, for light and dark; told apart by most who do not see all colours."""

_STYLE = """\
text { font: 13px system-ui, -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; }
.title { font-size: 17px; font-weight: 600; }
.strong { font-weight: 600; }
.back { fill: #ffffff; stroke: #d0d7de; }
.ink { fill: #1f2328; }
.soft { fill: #656d76; }
.grid { stroke: #e6e9ec; }
.mark { stroke: #656d76; stroke-dasharray: 5 4; }
.spread { stroke: #1f2328; stroke-opacity: .55; stroke-width: 1.5; }
.ours { fill: #1f6feb; }
.other { fill: #a9b4c0; }
.curve { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
"""
_DARK = """\
.back { fill: #0d1117; stroke: #30363d; }
.ink { fill: #e6edf3; }
.soft { fill: #9198a1; }
.grid { stroke: #262c34; }
.mark { stroke: #9198a1; }
.spread { stroke: #e6edf3; }
.ours { fill: #58a6ff; }
.other { fill: #545d68; }
"""


# -- what every chart is made of -----------------------------------------------------------


@dataclass(frozen=True)
class Scale:
    """From values to places: ``low`` is drawn at ``start``, ``high`` at ``end``."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    @classmethod
    def of(cls, values: Iterable[float], start: float, end: float) -> "Scale":
        """From nought to a round number; logarithmic, from below the least, if they span much."""
        known = list(values) or [1.0]
        least, most = min(known), max(known)
        if least > 0 and most / least >= 10**DECADES:
            return cls(_below(least / 2), _above(most), start, end, log=True)
        return cls(min(0.0, least), _above(most) if most > 0 else 1.0, start, end)

    def at(self, value: float) -> float:
        """The place of a value; what is outside is drawn at the edge."""
        value = min(max(value, self.low), self.high)
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """Round values to label."""
        if self.log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            steps = (1, 2, 5) if last - first <= DECADES + 1 else (1,)
            every = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        else:
            step = _above((self.high - self.low) / most)
            first = math.ceil(self.low / step)
            every = [step * at for at in range(first, first + 2 * most + 1)]
        return [tick for tick in every if self.low <= tick <= self.high * (1 + 1e-9)]


def _above(value: float) -> float:
    """The least of 1, 2 and 5 times a power of ten that is not below."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def _below(value: float) -> float:
    """The greatest of 1, 2 and 5 times a power of ten that is not above."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (5, 2, 1) if step * power <= value * (1 + 1e-9))


def number(value: float) -> str:
    """Three digits of it, or all that are before the point."""
    if value and abs(value) < 100:
        return f"{value:.3g}"
    return f"{value:,.0f}"


def text(x: float, y: float, words: str, kind: str = "ink", anchor: str = "start") -> str:
    """Words whose base line is at ``y``."""
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"'
    return f"<text {where} class={quoteattr(kind)}>{escape(words)}</text>"


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line."""
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f"<line {ends} class={quoteattr(kind)}/>"


def box(x: float, y: float, width: float, height: float, kind: str, round: float = 0) -> str:
    """A rectangle."""
    where = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" rx="{round:g}"'
    return f"<rect {where} class={quoteattr(kind)}/>"


def across(scale: Scale, top: float, bottom: float, label: str = "") -> list[str]:
    """A horizontal axis: a line up at each tick, its number below, the label under the numbers."""
    shapes = [line(scale.at(tick), top, scale.at(tick), bottom, "grid") for tick in scale.ticks()]
    shapes += [
        text(scale.at(tick), bottom + LINE, number(tick), "soft", "middle")
        for tick in scale.ticks()
    ]
    if label:
        shapes.append(text(scale.end, bottom + 2 * LINE + 2, label, "soft", "end"))
    return shapes


def up(scale: Scale, left: float, right: float, ticks: int = 5) -> list[str]:
    """A vertical axis: a line across at each tick, its number to the left."""
    shapes = []
    for tick in scale.ticks(ticks):
        y = scale.at(tick)
        shapes += [
            line(left, y, right, y, "grid"),
            text(left - 8, y + 4, number(tick), "soft", "end"),
        ]
    return shapes


def framed(shapes: Iterable[str], height: float, title: str, style: str = "") -> str:
    """A whole SVG of these shapes."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" '
        f'width="{WIDTH}" height="{height:.0f}" role="img" aria-label={quoteattr(title)}>'
    )
    dark = f"@media (prefers-color-scheme: dark) {{\n{_DARK}{_series_style(dark=True)}}}\n"
    return "\n".join(
        [
            head,
            f"<title>{escape(title)}</title>",
            f"<style>\n{_STYLE}{_series_style(dark=False)}{style}{dark}</style>",
            box(0.5, 0.5, WIDTH - 1, height - 1, "back", round=8),
            text(MARGIN, MARGIN + 14, title, "title ink"),
            *shapes,
            "</svg>\n",
        ]
    )


def _series_style(*, dark: bool) -> str:
    return "".join(
        f".curve.s{at} {{ stroke: {pair[dark]}; }}\n.key.s{at} {{ fill: {pair[dark]}; }}\n"
        for at, pair in enumerate(COLOURS)
    )


# -- bars ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bar:
    """One bar; without a value, its ``told`` says why.

    Attributes:
        label: whose it is.
        value: how long it is.
        told: behind its end.
        spread: the least and the most of what ``value`` is the median of.
        ours: it stands out.
    """

    label: str
    value: float | None
    told: str
    spread: tuple[float, float] | None = None
    ours: bool = False


BAR, GAP = 18, 9


def bars(
    groups: Mapping[str, Sequence[Bar]],
    title: str,
    unit: str,
    floor: tuple[str, float] | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """Horizontal bars in titled groups on one scale, the floor a dashed line through all of them.

    The scale is logarithmic where the values span two powers of ten, and says so.
    """
    every = [bar for group in groups.values() for bar in group]
    left = MARGIN + LETTER * max((len(bar.label) for bar in every), default=0) + 16
    values = [bar.value for bar in every if bar.value is not None]
    values += [end for bar in every for end in bar.spread or ()]
    right = WIDTH - MARGIN - LETTER * max((len(bar.told) for bar in every if bar.value), default=0)
    scale = Scale.of([*values, *([floor[1]] if floor else [])], left, right)
    y = top = MARGIN + 2 * LINE + (LINE + 6 if floor else 0)
    shapes = []
    for name, group in groups.items():
        y += LINE
        shapes.append(text(MARGIN, y, name, "strong ink"))
        y += GAP
        for bar in group:
            shapes += _bar(bar, scale, y, floor[1] if floor else None)
            y += BAR + GAP
        y += GAP
    label = f"{unit}, logarithmic scale" if scale.log else unit
    axes = across(scale, top, y, label)
    if floor:
        axes.append(text(scale.at(floor[1]), top - 8, floor[0], "soft", "middle"))
    y += 2 * LINE + 2
    for remark in remarks:
        y += LINE
        shapes.append(text(MARGIN, y + 4, remark, "soft"))
    return framed([*axes, *shapes], y + MARGIN, title)


def _bar(bar: Bar, scale: Scale, y: float, floor: float | None) -> list[str]:
    middle = y + BAR / 2
    kind = "strong ink" if bar.ours else "ink"
    shapes = [text(scale.start - 10, middle + 4.5, bar.label, kind, "end")]
    if bar.value is None:
        room = int((WIDTH - MARGIN - scale.start) / LETTER)
        told = shorten(bar.told, room, placeholder=" …")
        return [*shapes, text(scale.start + 8, middle + 4.5, told, "soft")]
    end = scale.at(bar.value)
    shapes.append(box(scale.start, y, end - scale.start, BAR, "ours" if bar.ours else "other", 2))
    if floor is not None:
        x = scale.at(floor)
        shapes.append(line(x, y - GAP / 2, x, y + BAR + GAP / 2, "mark"))
    if bar.spread:
        low, high = map(scale.at, bar.spread)
        shapes.append(line(low, middle, high, middle, "spread"))
        end = max(end, high)
    return [*shapes, text(end + 8, middle + 4.5, bar.told, kind)]


# -- lines over time -----------------------------------------------------------------------

Points = Sequence[tuple[float, float]]
"""(seconds, value), in the order of time."""


def timeline(
    series: Mapping[str, Points],
    title: str,
    y_label: str,
    x_label: str,
    limit: float | None = None,
    *,
    panels: bool = False,
    step: bool = False,
) -> str:
    """Named series over seconds, and a dashed line at ``limit``.

    Args:
        panels: one below the other, a panel for each, with the same axes; else all in one.
        step: a value holds until the next one; else they are joined by straight lines.
    """
    every = [point for points in series.values() for point in points]
    left, right = MARGIN + 48, WIDTH - MARGIN - (LETTER * 8 if limit is not None else 8)
    seconds = [at for at, _ in every] or [0.0, 1.0]
    low, high = min(seconds), max(seconds)
    x = Scale(low, high if high > low else low + 1, left, right)
    height, between = (84, 34) if panels else (300, 0)
    top = MARGIN + 2 * LINE
    shapes = [text(MARGIN, top + 6, y_label, "soft")]
    if panels:
        drawn = [{name: points} for name, points in series.items()]
    else:
        drawn = [dict(series)]
        shapes += _legend(series, right, top + 6)
    numbers = {name: at % len(COLOURS) for at, name in enumerate(series)}
    bottom = top
    for part in drawn:
        start = bottom + (between or LINE)
        bottom = start + height
        y = _zeroed([value for _, value in every], limit, bottom, start)
        shapes += up(y, left, right, ticks=3 if panels else 6)
        if panels:
            shapes.append(text(left, start - 8, next(iter(part)), "strong ink"))
        for name, points in part.items():
            shapes.append(_curve(points, x, y, f"curve s{numbers[name]}", step=step))
        if limit is not None:
            shapes.append(line(left, y.at(limit), right, y.at(limit), "mark"))
            shapes.append(text(right + 6, y.at(limit) + 4, f"limit {number(limit)}", "soft"))
    shapes += across(x, bottom, bottom, x_label)
    return framed(shapes, bottom + 2 * LINE + MARGIN, title)


def _zeroed(values: Sequence[float], limit: float | None, start: float, end: float) -> Scale:
    """From nought to a round number that leaves room above the highest value and the limit."""
    most = max([*values, limit or 0.0], default=0.0) * 1.05
    if most <= 0:
        return Scale(0, 1, start, end)
    step = _above(most / 6)
    return Scale(min(0.0, *values), step * math.ceil(most / step), start, end)


def _legend(names: Iterable[str], right: float, y: float) -> list[str]:
    shapes: list[str] = []
    x = right
    for at, name in reversed(list(enumerate(names))):
        x -= LETTER * len(name)
        shapes.append(text(x, y, name))
        x -= 16
        shapes.append(box(x, y - 9, 10, 10, f"key s{at % len(COLOURS)}", round=2))
        x -= 16
    return shapes


def _curve(points: Points, x: Scale, y: Scale, kind: str, *, step: bool) -> str:
    placed = [(x.at(at), y.at(value)) for at, value in points]
    parts = []
    for at, (across_, up_) in enumerate(placed):
        if at == 0:
            parts.append(f"M{across_:.1f} {up_:.1f}")
        elif step:
            parts.append(f"H{across_:.1f}V{up_:.1f}")
        else:
            parts.append(f"L{across_:.1f} {up_:.1f}")
    return f'<path d="{"".join(parts)}" class={quoteattr(kind)}/>'
