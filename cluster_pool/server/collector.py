"""Settings of Python's garbage collector for a process that is a node and nothing else.

They hold for a whole process, so only a program that owns its process applies them: not the
library, and not :func:`.run.run` in a user's loop.
"""

import gc
from typing import Final

YOUNG: Final = 10_000
"""New objects between two collections of the young ones. A burst of 1,000 sends has 5,000 objects
in flight at once; at Python's default of 700 the collector looks at each of them, keeps it, and
looks at it again among the older ones."""

MIDDLE: Final = 5
"""Collections of young objects between two of those that survived one: 50,000 take 25 ms."""
OLD: Final = 20
"""Collections of survivors between two of everything. Each connection is 70 objects, and a full
collection holds the loop for 0.2 s per 5,000 connections: it must not come with each storm."""


def tune() -> None:
    """Exclude the loaded program from collection, and collect new objects less often.

    Nearly all objects of a node are freed by their reference count and need no collection.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
