"""What a connection is given by the pool it belongs to, and what it has without one."""

import asyncio
import os
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.quiet import Quiet
from cluster_pool.core.statistics import Counters
from cluster_pool.loops import running_loop

if TYPE_CHECKING:
    from cluster_pool.core.message import Outgoing
    from cluster_pool.local.connection import Connection


class Flusher:
    """Writes the outboxes that got something in this tick of the loop, once, at its end."""

    __slots__ = ("_dirty",)

    def __init__(self) -> None:
        self._dirty: list[Connection] = []

    def add(self, connection: "Connection") -> None:
        """``connection`` has something to write. Changes nothing where no loop would write it."""
        if not self._dirty:
            running_loop().call_soon(self.flush)
        self._dirty.append(connection)

    def add_all(self, connections: "list[Connection]") -> None:
        """Each of ``connections`` has something to write."""
        if connections and not self._dirty:
            running_loop().call_soon(self.flush)
        self._dirty += connections

    def flush(self) -> None:
        """Write everything now.

        First look, then write, then deal with what could not be written: nothing can change
        between look and write, and a loop that does nothing but write is the fastest there is.
        """
        dirty, self._dirty = self._dirty, []
        direct: list[tuple[Connection, int, Outgoing]] = []
        others = [one for one in dirty if not one.take_into(direct)]
        cut_short = []
        for connection, descriptor, outgoing in direct:
            frame = outgoing.frame
            try:
                taken = os.write(descriptor, frame)
            except OSError:  # the kernel takes no more, or the socket is lost: the loop will see
                taken = 0
            if taken != len(frame):
                cut_short.append((connection, outgoing, taken))
        for connection, outgoing, taken in cut_short:
            connection.hand_over(outgoing, taken)
        for connection in others:
            connection.flush()


class LooseFlusher(Flusher):
    """Of connections that belong to no pool: what each loop has to write, it writes itself."""

    __slots__ = ("_by_loop",)

    def __init__(self) -> None:
        super().__init__()
        self._by_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, Flusher] = WeakKeyDictionary()

    def add(self, connection: "Connection") -> None:
        """See :class:`Flusher`."""
        loop = running_loop()
        flusher = self._by_loop.get(loop)
        if flusher is None:
            flusher = self._by_loop[loop] = Flusher()
        flusher.add(connection)


class Owner(Protocol):
    """Who runs while a connection is open, and is told when it is over."""

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
    """A pool, as its connections see it."""

    limits: Limits
    timing: Timing
    counters: Counters
    flusher: Flusher
    quiet: Quiet

    def check_loop(self) -> None:
        """Raise WrongLoopError unless this is the loop in which the connections live."""

    def departing(self, connection: "Connection") -> None:
        """A connection begins to close, for whatever reason; told once."""

    def slow_consumer(self, connection: "Connection") -> None:
        """A connection is being closed with 1013."""

    def watch(self, connection: "Connection") -> None:
        """A connection needs the sweep: it closes, holds unwritten bytes, handles, or may idle."""


class Detached:
    """For a connection that belongs to no pool: it closes by a timer of its own."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.timing = Timing()
        self.counters = Counters()
        self.flusher: Flusher = LooseFlusher()
        self.quiet = Quiet()

    def check_loop(self) -> None:
        """See :class:`ConnectionServices`."""
        running_loop()

    def departing(self, connection: "Connection") -> None:
        """See :class:`ConnectionServices`."""

    def slow_consumer(self, connection: "Connection") -> None:
        """See :class:`ConnectionServices`."""

    def watch(self, connection: "Connection") -> None:
        """See :class:`ConnectionServices`."""
        loop = asyncio.get_running_loop()
        if connection.closed:
            loop.call_later(self.timing.close, connection.sweep, loop.time() + self.timing.close)


DETACHED = Detached()
