"""Shows the demo: rows that stay, and on a terminal a moving line below them.

No row is cut: on a terminal that is too narrow for columns, a row takes several lines.
"""

import contextlib
import textwrap
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import typer
from rich.console import Console
from rich.live import Live
from rich.text import Text

INDENT: Final = 6
"""Columns of the word "ok" or "WRONG", and the indent of the lines below it."""
COLUMNS: Final = 78
"""Columns of a row with its numbers; the remark is in the next line."""
WIDE: Final = 130
"""Columns that take a row and its remark side by side."""
SPINNER: Final = "|/-\\"
EVERY: Final = 2.0
"""Seconds between two lines about a scene under way, where no line can move."""


@dataclass(frozen=True)
class Row:
    """The result of one scene. Milliseconds are None where nothing was timed."""

    scene: str
    sent: int
    delivered: int
    lost: int
    median_ms: float | None
    longest_ms: float | None
    right: bool
    remark: str = ""


class Screen(Protocol):
    """Where the demo is shown."""

    def scene(self, title: str) -> None:
        """Show which scene begins."""

    def detail(self, text: str) -> None:
        """Show how far the scene is."""

    def row(self, row: Row) -> None:
        """Show the result of the scene."""


@contextlib.contextmanager
def screen(*, silent: bool) -> Iterator[Screen]:
    """Choose a screen that fits standard output; one that shows nothing if ``silent``."""
    console = Console(highlight=False)
    if silent:
        yield Silence()
    elif console.is_terminal and not console.is_dumb_terminal:
        terminal = Terminal(console)
        with terminal.live:
            yield terminal
    else:
        yield Lines(console.width if console.is_terminal else None)


class Silence:
    """Shows nothing: a program reads what is printed at the end."""

    def scene(self, title: str) -> None:
        """See :class:`Screen`."""

    def detail(self, text: str) -> None:
        """See :class:`Screen`."""

    def row(self, row: Row) -> None:
        """See :class:`Screen`."""


class Lines:
    """Prints a line for everything, for a log or a pipe.

    Args:
        width: of a terminal that cannot move its cursor, whose rows must fit; None for a pipe.
    """

    def __init__(self, width: int | None) -> None:
        self._width = width
        self._next = 0.0

    def scene(self, title: str) -> None:
        """See :class:`Screen`."""
        self._next = time.monotonic() + EVERY
        typer.echo(f"… {title}")

    def detail(self, text: str) -> None:
        """See :class:`Screen`."""
        if time.monotonic() >= self._next:
            self.scene(text)

    def row(self, row: Row) -> None:
        """See :class:`Screen`."""
        if self._width is not None:
            typer.echo("\n".join(lines_of(row, self._width)))
            return
        median, longest = _ms(row.median_ms), _ms(row.longest_ms)
        typer.echo(
            f"{_mark(row):{INDENT}}{row.scene:32} sent {row.sent:>5}  "
            f"delivered {row.delivered:>5}  lost {row.lost:>3}  "
            f"median {median:>8} ms  longest {longest:>8} ms  {row.remark}"
        )


class Terminal:
    """Prints rows that scroll like all output, and keeps a moving line below them."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._title = self._detail = ""
        self._since = time.monotonic()
        self._headed = False
        self.live = Live(
            get_renderable=self._under_way, console=console, refresh_per_second=10, transient=True
        )

    def scene(self, title: str) -> None:
        """See :class:`Screen`."""
        self._title, self._detail, self._since = title, "", time.monotonic()

    def detail(self, text: str) -> None:
        """See :class:`Screen`."""
        self._detail = text

    def row(self, row: Row) -> None:
        """See :class:`Screen`."""
        width = self._console.width
        if not self._headed and width >= COLUMNS:
            self._headed = True
            self._print(HEADING, "bold")
        first, *others = lines_of(row, width)
        self._print(first, "" if row.right else "bold red")
        for line in others:
            self._print(line, "dim")

    def _print(self, line: str, style: str) -> None:
        """Print a line as it is; the terminal itself wraps one that is too long for it."""
        self._console.print(Text(line, style), soft_wrap=True)

    def _under_way(self) -> Text:
        seconds = time.monotonic() - self._since
        spinner = SPINNER[int(seconds * 10) % len(SPINNER)]
        lines = [f"{spinner} {self._title} ({seconds:.0f} s)", self._detail]
        return Text("\n".join(filter(None, lines)))


def lines_of(row: Row, width: int) -> list[str]:
    """Format a row as lines that fit the terminal, unless one word alone does not."""
    if width < COLUMNS:
        times = {"median": _ms(row.median_ms), "longest": _ms(row.longest_ms)}
        timed = "".join(f", {name} {value} ms" for name, value in times.items() if value)
        numbers = f"sent {row.sent}, delivered {row.delivered}, lost {row.lost}{timed}"
        named = _wrapped(row.scene, width)
        named[0] = f"{_mark(row):{INDENT}}{named[0].strip()}"
        return [*named, *_wrapped(numbers, width), *_wrapped(row.remark, width)]
    line = _columns(
        _mark(row),
        row.scene,
        *map(str, (row.sent, row.delivered, row.lost)),
        *map(_ms, (row.median_ms, row.longest_ms)),
    )
    if width >= WIDE and COLUMNS + 2 + len(row.remark) <= width:
        return [f"{line}  {row.remark}".rstrip()]
    return [line.rstrip(), *_wrapped(row.remark, width)]


def _columns(mark: str, scene: str, *numbers: str) -> str:
    sent, delivered, lost, median, longest = numbers
    counts = f"{sent:>6}{delivered:>11}{lost:>6}"
    return f"{mark:{INDENT}}{scene:29}{counts}{median:>9}{longest:>11}"


HEADING: Final = _columns("", "", "sent", "delivered", "lost", "median", "longest ms")


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap text below a row's name. Words are not broken, so that they can be copied whole."""
    indent = " " * INDENT
    return textwrap.wrap(
        text,
        max(width, INDENT + 1),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _mark(row: Row) -> str:
    return "ok" if row.right else "WRONG"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
