"""Settings of Python's garbage collector for a process that is a node and nothing else.

They hold for a whole process, so only a program that owns its process applies them: not the
library, and not :func:`.run.run` in a user's loop.

Nearly all objects of a node are freed by their reference count; the collector finds the cycles. A
collection of everything looks at each object, and nothing else runs meanwhile: 0.2 s for 5,000
connections. By default it comes whenever a quarter more objects are there, so several times in a
storm of clients. Here, what has survived two collections is excluded from later ones, and
everything is collected when it has grown by half or more since the last time.
"""

import asyncio
import contextlib
import gc
from typing import Final

YOUNG: Final = 10_000
"""New objects between two collections of the young ones. A burst of 1,000 sends has 5,000 objects
in flight at once; at Python's default of 700 the collector looks at each of them, keeps it, and
looks at it again among the older ones."""
MIDDLE: Final = 1
"""Collections of young objects, less one, between two of those that survived one. No object is
looked at more than twice, so more often is not more work, but shorter turns: 50,000 objects take
25 ms."""
NEVER: Final = 1_000_000_000
"""Python begins no collection of everything by itself."""
WHOLE: Final = 1_000_000
"""Survivors between two collections of everything, at least. A connection is 70 objects."""

SECOND: Final = 1
"""The generation whose collection an object survives before it is excluded."""
OLDEST: Final = 2


class Survivors:
    """Excludes from later collections what has survived, until so much has come that all is due."""

    def __init__(self) -> None:
        self._before = 0
        self._new = 0

    def collect_all(self) -> None:
        """Collect everything, what was excluded as well, and exclude what is left."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._before, self._new = gc.get_freeze_count(), 0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        """Python has begun or ended a collection."""
        if phase != "stop" or info["generation"] != SECOND:
            return
        self._new += len(gc.get_objects(generation=OLDEST))
        gc.freeze()
        if self._is_due():
            with contextlib.suppress(RuntimeError):  # in another thread: after the next collection
                asyncio.get_running_loop().call_soon(self.collect_all)

    def _is_due(self) -> bool:
        most = max(WHOLE, self._before)
        if self._new < most:
            return False
        self._new = gc.get_freeze_count() - self._before  # many may have been freed since
        return self._new >= most // 2


def tune() -> None:
    """Exclude the loaded program from collection, and what survives; collect less often."""
    survivors = Survivors()
    survivors.collect_all()
    gc.callbacks.append(survivors)
    gc.set_threshold(YOUNG, MIDDLE, NEVER)
