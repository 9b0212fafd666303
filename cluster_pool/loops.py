"""Which event loop an object belongs to.

An object that is used from another loop or thread would schedule its work where nobody runs it, and
wait for it for ever. So each public call looks first, and changes nothing when the loop is wrong.
"""

import asyncio

from cluster_pool.exceptions import WrongLoopError


def running_loop() -> asyncio.AbstractEventLoop:
    """The loop that runs in this thread; raises WrongLoopError when there is none."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise WrongLoopError("called outside of an event loop") from None


def check_loop(owner: asyncio.AbstractEventLoop) -> asyncio.AbstractEventLoop:
    """``owner``, if that is the loop that runs in this thread; else raises WrongLoopError."""
    if running_loop() is not owner:
        raise WrongLoopError("called in another event loop than the one it was started in")
    return owner
