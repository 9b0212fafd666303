"""What a connection is given by the pool it belongs to, and what it has without one."""

import asyncio
from typing import TYPE_CHECKING, Protocol

from cluster_pool.core.config import Limits, Timing
from cluster_pool.core.statistics import Counters

if TYPE_CHECKING:
    from cluster_pool.local.connection import Connection


class Flusher:
    """Writes the outboxes that got something in this tick of the loop, once, at its end."""

    __slots__ = ("_dirty",)

    def __init__(self) -> None:
        self._dirty: list[Connection] = []

    def add(self, connection: "Connection") -> None:
        """``connection`` has something to write."""
        self._dirty.append(connection)
        if len(self._dirty) == 1:
            asyncio.get_running_loop().call_soon(self.flush)

    def flush(self) -> None:
        """Write everything now."""
        dirty, self._dirty = self._dirty, []
        for connection in dirty:
            connection.flush()


class Host(Protocol):
    """A pool, as its connections see it."""

    limits: Limits
    timing: Timing
    counters: Counters
    flusher: Flusher

    def departing(self, connection: "Connection") -> None:
        """A connection begins to close, for whatever reason; told once."""

    def slow_consumer(self, connection: "Connection") -> None:
        """A connection is being closed with 1013."""

    def watch(self, connection: "Connection") -> None:
        """A connection needs the sweep: it closes, holds unwritten bytes, handles, or may idle."""


class NoHost:
    """For a connection that belongs to no pool: it closes by a timer of its own."""

    def __init__(self) -> None:
        self.limits = Limits()
        self.timing = Timing()
        self.counters = Counters()
        self.flusher = Flusher()

    def departing(self, connection: "Connection") -> None:
        """See :class:`Host`."""

    def slow_consumer(self, connection: "Connection") -> None:
        """See :class:`Host`."""

    def watch(self, connection: "Connection") -> None:
        """See :class:`Host`."""
        loop = asyncio.get_running_loop()
        if connection.closed:
            loop.call_later(self.timing.close, connection.sweep, loop.time() + self.timing.close)


NO_HOST = NoHost()
