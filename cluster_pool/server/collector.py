"""Python's garbage collector in a process that is a node and nothing else.

Owned by whoever owns the process; a library does not decide this for its user.
"""

import gc
from typing import Final

YOUNG: Final = 10_000
"""New objects from one collection to the next. A burst of 1,000 sends has 5,000 of its own in
flight at once; at Python's 700 each is looked at, kept, and looked at again among the old ones."""

MIDDLE: Final = 5
"""Young collections from one of what survived them to the next: 50,000 objects take 25 ms."""
OLD: Final = 20
"""Those from one of everything to the next. Each connection is 70 objects, and a collection of
everything holds the loop for 0.2 s per 5,000 connections: it must not come with a storm of them."""


def settle() -> None:
    """The program is loaded: never look at what it consists of again, and less often at the new.

    What dies by its reference count, as nearly everything here does, needs no collection at all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, OLD)
