"""Memory and descriptors of this process, as far as the system tells them at no cost."""

import errno
import os
from typing import Final

try:
    import resource
except ImportError:  # Windows, where a process may have any number of descriptors
    resource = None  # type: ignore[assignment]  # else a module

STATM: Final = "/proc/self/statm"


def process() -> dict[str, int | None]:
    """For ``statistics()``; None for what is not known here.

    A new descriptor is the lowest free number: at least so many are in use. To list them would take
    longer, the more clients there are.
    """
    limit = _limit()
    told: dict[str, int | None] = {
        "memory_bytes": None,
        "descriptors": None,
        "descriptors_limit": limit,
    }
    try:
        number = os.open(STATM, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        exhausted = error.errno == errno.EMFILE
        return {**told, "descriptors": limit} if exhausted else told
    except AttributeError:  # Windows has no O_CLOEXEC, and no such file
        return told
    try:
        pages = int(os.read(number, 200).split()[1])
    finally:
        os.close(number)
    return {**told, "memory_bytes": pages * os.sysconf("SC_PAGE_SIZE"), "descriptors": number}


def _limit() -> int | None:
    if resource is None:
        return None
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft
