"""Writing frames to file descriptors: the loop at the end of a tick, whatever libraries there are.

It is apart from :mod:`frames`, which knows a library, so that nothing loads that without need.
"""

import os
from collections.abc import Iterable
from typing import TypeVar

from cluster_pool.core.message import Outgoing

T = TypeVar("T")


def write_directly(due: Iterable[tuple[T, int, Outgoing]]) -> list[tuple[T, Outgoing, int]]:
    """Write frames to descriptors; gives those that were cut short, and how much of each went.

    Nothing else happens in between: a loop that only writes is the fastest there is, and what was
    safe when the descriptors were given is so until the last of them is written to.
    """
    cut_short: list[tuple[T, Outgoing, int]] = []
    write = os.write
    for one, descriptor, outgoing in due:
        frame = outgoing.frame
        try:
            written = write(descriptor, frame)
        except OSError:  # the kernel takes no more, or the socket is lost: the loop will see
            written = 0
        if written != len(frame):
            cut_short.append((one, outgoing, written))
    return cut_short
