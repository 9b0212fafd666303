"""Writes frames to file descriptors, in one loop at the end of a tick; the same for every library.

It is apart from :mod:`frames`, which imports a library, so that the library is not loaded without
need.
"""

import os
from collections.abc import Iterable
from typing import TypeVar

from cluster_pool.core.message import Outgoing

T = TypeVar("T")


def write_directly(due: Iterable[tuple[T, int, Outgoing]]) -> list[tuple[T, Outgoing, int]]:
    """Write frames to descriptors; returns those that were cut short, with the bytes written.

    Nothing else runs in between: a loop that only writes is the fastest, and each descriptor is
    still as safe as when it was looked up. Two connections may share a descriptor: when a frame of
    one was cut short, nothing of the other is written, so that it does not come in between.
    """
    cut_short: list[tuple[T, Outgoing, int]] = []
    full: set[int] = set()
    write = os.write
    for one, descriptor, outgoing in due:
        frame = outgoing.frame
        try:
            written = 0 if cut_short and descriptor in full else write(descriptor, frame)
        except OSError:  # the kernel accepts no more, or the socket is lost: the loop will see
            written = 0
        if written != len(frame):
            cut_short.append((one, outgoing, written))
            full.add(descriptor)
    return cut_short
