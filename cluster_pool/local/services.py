"""The services that a pool gives its connections, and the observers that they tell of events."""

import asyncio
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.quiet import Quiet
from cluster_pool.core.statistics import Counters
from cluster_pool.loops import running_loop

C = TypeVar("C")


class Flusher(Generic[C]):
    """Has the connections that got something in this tick of the loop written, once, at its end.

    Args:
        write: writes what is pending for each of them.
    """

    __slots__ = ("_dirty", "_write")

    def __init__(self, write: Callable[[list[C]], None]) -> None:
        self._dirty: list[C] = []
        self._write = write

    def add(self, connection: C) -> None:
        """``connection`` has something to write. Changes nothing where no loop would write it."""
        if not self._dirty:
            running_loop().call_soon(self.flush)
        self._dirty.append(connection)

    def add_all(self, connections: list[C]) -> None:
        """Each of ``connections`` has something to write."""
        if connections and not self._dirty:
            running_loop().call_soon(self.flush)
        self._dirty += connections

    def flush(self) -> None:
        """Write everything now."""
        dirty, self._dirty = self._dirty, []
        self._write(dirty)


class LooseFlusher(Flusher[C]):
    """Of connections that belong to no pool: what each loop has to write, it writes itself."""

    __slots__ = ("_by_loop",)

    def __init__(self, write: Callable[[list[C]], None]) -> None:
        super().__init__(write)
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Flusher[C]]
        self._by_loop = WeakKeyDictionary()

    def add(self, connection: C) -> None:
        """See :class:`Flusher`."""
        loop = running_loop()
        flusher = self._by_loop.get(loop)
        if flusher is None:
            flusher = self._by_loop[loop] = Flusher(self._write)
        flusher.add(connection)


class Owner(Protocol):
    """Code that runs while a connection is open, and is told when it is over."""

    def reading_begins(self) -> None:
        """The connection is iterated over by the current task."""

    def reading_ends(self, task: "asyncio.Task[Any] | None", *, finished: bool) -> None:
        """The iteration that ``task`` began is over: at its end, or it was left."""

    def closing(self) -> None:
        """The current task has told the connection to close."""

    def calls(self) -> bool:
        """Whether the current code is the owner's."""

    def over(self) -> None:
        """The client has left, or nothing that it says counts any more; perhaps both in turn."""


class ConnectionServices(Protocol):
    """A pool, as its connections see it; what it is told of them is told by themselves."""

    limits: Limits
    timing: Timing
    counters: Counters
    flusher: Flusher[Any]
    quiet: Quiet

    def check_loop(self) -> None:
        """Raise WrongLoopError unless this is the loop in which the connections live."""

    def departing(self, connection: Any) -> None:
        """A connection begins to close, for whatever reason; told once."""

    def slow_consumer(self, connection: Any) -> None:
        """A connection is being closed with 1013."""

    def watch(self, connection: Any) -> None:
        """A connection needs the sweep: it closes, holds unwritten bytes, handles, or may idle."""
