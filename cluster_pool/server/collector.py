"""Settings of Python's garbage collector for a process that is a node and nothing else.

They hold for a whole process, so only a program that owns its process applies them: not the
library, and not :func:`.run.run` in a user's loop.

Nearly all objects of a node are freed by their reference count; the collector finds the cycles. A
collection of everything looks at each object, and nothing else runs meanwhile: 0.2 s for 5,000
connections. By default it comes whenever a quarter more objects are there, so several times in a
storm of clients. Here, what has survived two collections is excluded from later ones, and
everything is collected when it has doubled since the last time.
"""

import asyncio
import contextlib
import gc
import sys
from typing import Final

YOUNG: Final = 2_000
"""New objects, less those that were freed, between two collections of the young ones. It is less
than what comes and goes with one batch of replies: in a storm as many are freed as are made, and a
collection that did not begin with each batch would look at all that is in flight, 250,000 objects
of 5,000 joins, in one turn. At Python's default of 700 it would look at each of the 5,000 objects
that a burst of 1,000 sends has in flight for a moment, and again among the older ones."""
MIDDLE: Final = 1
"""Collections of young objects, less one, between two of those that survived one. No object is
looked at more than twice, so more often is not more work, but shorter turns: 50,000 objects take
25 ms."""
NEVER: Final = 1_000_000_000
"""Python begins no collection of everything by itself."""
WHOLE: Final = 2_000_000
"""Growth between two collections of everything, in blocks of memory, at least: 5,000 connections
with 100,000 memberships, but no sockets, are 460,000."""

SECOND: Final = 1
"""The generation whose collection an object survives before it is excluded."""


class Survivors:
    """Excludes from later collections what has survived, until so much has come that all is due."""

    def __init__(self) -> None:
        self._before = 0
        self._net = 0

    def collect_all(self) -> None:
        """Collect everything, what was excluded as well, and exclude what is left."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._before = self._blocks()

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """Python has begun or ended a collection."""
        if phase != "stop" or info["generation"] != SECOND:
            return
        gc.freeze()
        self._net += YOUNG * (MIDDLE + 1)
        if self._blocks() - self._before >= max(WHOLE, self._before):
            with contextlib.suppress(RuntimeError):  # in another thread: after the next collection
                asyncio.get_running_loop().call_soon(self.collect_all)

    def _blocks(self) -> int:
        """The blocks of memory in use, which Python counts without looking at each object.

        With another allocator (``PYTHONMALLOC``) it counts none. Then it is the most by which the
        objects can have grown, so everything is collected more often.
        """
        return sys.getallocatedblocks() or self._net


def tune() -> None:
    """Exclude the loaded program from collection, and what survives; collect less often."""
    survivors = Survivors()
    survivors.collect_all()
    gc.callbacks.append(survivors)
    gc.set_threshold(YOUNG, MIDDLE, NEVER)
