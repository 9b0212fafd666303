"""Shows the progress of drains: as bars on a terminal, as lines in a log, or as JSON."""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from cluster_pool.cli.common import DONE, NO, note, say
from cluster_pool.core.results import DrainProgress, Node
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.publisher import Publisher

POLL: Final = 0.5
"""Seconds between two looks."""
PATIENCE: Final = 10
"""Looks after which a node that still reports that it is active is believed."""
EVERY: Final = 5.0
"""Seconds between two lines where there is no terminal."""
ENDED: Final = ("drained", "stopped", "active")
LONGEST_NAME: Final = 24
"""Characters of a node id beside its bar: it must leave room for the bar."""


@dataclass(slots=True)
class Row:
    """The state of one node and its drain.

    Attributes:
        state: of the drain or the node; "active" when the drain was cancelled.
        total, remaining: connections when the drain began, and those whose close has not begun.
        rate: closes per second that it may do.
    """

    node: str
    state: str = "announcing"
    total: int = 0
    remaining: int = 0
    rate: float = 0.0
    _begun: bool = False
    _idle: int = 0

    def update(self, node: Node | None, drain: DrainProgress | None) -> None:
        """Update it from the present state of the node and its drain in Redis."""
        if drain is not None:
            self._begun = True
            self.state, self.rate = drain.state, drain.rate
            self.total, self.remaining = drain.total, drain.remaining
            return
        self.rate = 0.0
        state = "stopped" if node is None else node.state.value
        if state == "active" and not self._begun and self._idle < PATIENCE:
            self._idle += 1  # it has confirmed the order, and Redis does not show the drain yet
            return
        self._begun, self.state = True, state
        if self.state in ("drained", "stopped"):
            self.remaining = 0
        elif node is not None:
            self.total = max(self.total, node.connections)
            self.remaining = node.connections


class View(Protocol):
    """Where the rows are shown."""

    def show(self, rows: Sequence[Row]) -> None:
        """Show the rows as they are now."""


async def follow(publisher: Publisher, targets: Sequence[str], as_json: bool) -> int:
    """Show the drains of nodes until all have ended; return DONE if all nodes are drained."""
    rows = [Row(node) for node in targets]
    with _view(as_json) as view:
        try:
            while True:
                await _look(publisher, rows)
                view.show(rows)
                if all(row.state in ENDED for row in rows):
                    break
                await asyncio.sleep(POLL)
        except asyncio.CancelledError:
            note("the nodes carry on; to stop them: cluster-pool drain … --cancel")
            raise
    return NO if any(row.state == "active" for row in rows) else DONE


async def _look(publisher: Publisher, rows: Sequence[Row]) -> None:
    """Update the rows from Redis; leave them as they are while it cannot be reached."""
    with contextlib.suppress(BackplaneUnavailableError):
        drains = {drain.node: drain for drain in await publisher.drains()}
        nodes = {node.id: node for node in await publisher.nodes()}
        for row in rows:
            row.update(nodes.get(row.node), drains.get(row.node))


@contextlib.contextmanager
def _view(as_json: bool) -> Iterator[View]:
    if as_json or not sys.stdout.isatty():
        yield Lines(as_json)
        return
    with _bars() as progress:
        yield Bars(progress)


class Lines:
    """Prints a line for a node whenever its state changes, and every few seconds."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._said: dict[str, str] = {}
        self._next = 0.0

    def show(self, rows: Sequence[Row]) -> None:
        """See :class:`View`."""
        rate = sum(row.rate for row in rows)
        now = time.monotonic()
        due = now >= self._next
        if due:
            self._next = now + (1.0 if self._as_json else EVERY)
        for row in rows:
            ended = row.state in ENDED
            if self._said.get(row.node) != row.state or (due and not ended):
                self._said[row.node] = row.state
                self._say(row, rate)

    def _say(self, row: Row, rate: float) -> None:
        fields = {
            "node": row.node,
            "state": row.state,
            "remaining": row.remaining,
            "total": row.total,
            "rate": round(row.rate, 1),
            "cluster_rate": round(rate, 1),
        }
        closed = f"{row.total - row.remaining} of {row.total} closed"
        say(
            self._as_json,
            fields,
            f"{row.node}\t{row.state}\t{closed}\tat {row.rate:.0f} a second; all: {rate:.0f}",
        )


class Bars:
    """Draws a bar for each node, and one for all of them."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def show(self, rows: Sequence[Row]) -> None:
        """See :class:`View`."""
        for row in rows:
            self._draw(row.node, row.total, row.remaining, row.rate, row.state)
        if len(rows) > 1:
            total, remaining = sum(r.total for r in rows), sum(r.remaining for r in rows)
            self._draw("all", total, remaining, sum(r.rate for r in rows), "")

    def _draw(self, name: str, total: int, remaining: int, rate: float, state: str) -> None:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(_short(name), state="", rate="")
        self._progress.update(
            self._tasks[name],
            total=max(total, 1) if remaining else total or 1,
            completed=(total - remaining) or (not remaining),
            state=state,
            rate=f"{rate:.0f}/s" if rate else "",
        )


def _short(name: str) -> str:
    """Keep both ends of a long name: they tell nodes apart."""
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME // 2 - 1]}…{name[-LONGEST_NAME // 2 :]}"


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", justify="right"),
        TextColumn("{task.fields[state]}"),
        console=Console(),
    )
