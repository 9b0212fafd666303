"""Charts of rows, drawn by matplotlib (the extra ``charts``): bars, and lines over time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tools.bench.table import Row

OURS = "cluster_pool"
COLOURS = {True: "#1f6feb", False: "#a9b4c0"}
SOFT = "#656d76"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "cluster_pool",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.axisbelow": True,
    "grid.color": "#e6e9ec",
}
REMARKS = (
    "CPU of both nodes and of Redis, not of the clients. Dashed, and 1 ×: a bare write(2) for\n"
    "each message, measured before each round. Thin lines: the least and the most of all rounds.\n"
    "Below 1 ×: messages that are due to one client together leave in one write.\n"
    "websockets.broadcast is one process without Redis: it reaches no other node."
)


def draw(rows: Sequence[Row], about: Mapping[str, str], folder: Path) -> list[Path]:
    """Every chart for which there are rows; gives the files."""
    drawn = []
    with rc_context(STYLE):
        if compared := [row for row in rows if row.group]:
            floor = next(row.median for row in rows if row.name == "floor" and row.samples)
            figure = bars(compared, floor, f"{REMARKS}\n{about.get('machine', '')}")
            drawn.append(_saved(figure, folder / "peers.svg"))
        for row in rows:
            if row.series:
                figure = lines(row.series, row.what, "seconds since SIGTERM", row.limit)
                drawn.append(_saved(figure, folder / "rolling.svg"))
    return drawn


def bars(rows: Sequence[Row], floor: float, remarks: str) -> Figure:
    """A bar for each row, in titled groups on one logarithmic scale; the floor a dashed line."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    heights = [len(group) + 1 for group in groups.values()]
    figure = Figure(figsize=(8.4, 0.27 * sum(heights) + 1.6), layout="constrained")
    panels: Any = figure.subplots(
        len(groups), sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes, (title, group) in zip(panels[:, 0], groups.items(), strict=True):
        axes.set_title(title, loc="left", fontweight="bold", fontsize=10)
        axes.set_xscale("log")
        axes.axvline(floor, color=SOFT, linestyle="--", linewidth=1)
        axes.set_yticks(range(len(group)), [row.name for row in group])
        axes.invert_yaxis()
        axes.minorticks_off()
        axes.grid(axis="x")
        axes.margins(x=0.35)
        for at, row in enumerate(group):
            _bar(axes, at, row, floor)
    figure.suptitle("CPU per delivered message of 128 bytes, µs (logarithmic scale)", x=0.4)
    figure.supxlabel(remarks, fontsize=8, color=SOFT, x=0.02, ha="left")
    return figure


def _bar(axes: Axes, at: int, row: Row, floor: float) -> None:
    if not row.samples or row.wrong:
        axes.text(floor, at, f" {row.wrong or row.note.partition(';')[0]}", va="center", color=SOFT)
        return
    ours = row.name == OURS
    axes.barh(at, row.median, color=COLOURS[ours], height=0.66)
    axes.plot((min(row.samples), max(row.samples)), (at, at), color="#1f2328", linewidth=1)
    told = f"  {_short(row.median)} µs, {_short(row.ratio or 0)} ×"
    weight = "bold" if ours else "normal"
    axes.text(max(row.samples), at, told, va="center", fontweight=weight)


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def lines(
    series: Mapping[str, Sequence[tuple[float, float]]],
    title: str,
    x_label: str,
    limit: float | None = None,
) -> Figure:
    """A panel for each series over seconds, one below the other with the same axes."""
    figure = Figure(figsize=(8.4, 0.6 + 1.3 * len(series)), layout="constrained")
    panels: Any = figure.subplots(len(series), sharex=True, sharey=True, squeeze=False)
    for axes, (name, points) in zip(panels[:, 0], series.items(), strict=True):
        axes.set_title(name, loc="left", fontweight="bold", fontsize=10)
        axes.plot([at for at, _ in points], [value for _, value in points], color=COLOURS[True])
        if limit is not None:
            axes.axhline(limit, color=SOFT, linestyle="--", linewidth=1)
        axes.grid(axis="y")
        axes.margins(x=0)
    most = max((value for points in series.values() for _, value in points), default=0.0)
    panels[0, 0].set_ylim(0, 1.05 * max(most, limit or 1.0))
    figure.suptitle(title)
    panels[-1, 0].set_xlabel(x_label)
    return figure


def _saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, metadata={"Date": None})
    return path
