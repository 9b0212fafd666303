"""Faults, and the names by which they are called."""

import random
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from tools.chaos.cluster import Cluster


class Harm(NamedTuple):
    """The kind of a fault, and the nodes it hits; None for all.

    ``held`` are frozen or killed themselves; ``ghosts``: their members are registered on.
    ``forgets``: Redis may have lost some of its state. ``repair`` makes whole what nobody needs
    for things to go on, once everything does.
    """

    what: str
    nodes: frozenset[str] | None = None
    held: frozenset[str] = frozenset()
    ghosts: bool = False
    repair: Callable[[], Awaitable[None]] | None = None
    forgets: bool = False


Fault = Callable[[Cluster, random.Random], Awaitable[Harm]]


class Faults(dict[str, Fault]):
    """Faults by their names; the first line of a docstring is what ``--help`` says of it."""

    def named(self, name: str) -> Callable[[Fault], Fault]:
        """Call a fault by this name."""

        def add(inject: Fault) -> Fault:
            self[name] = inject
            return inject

        return add
