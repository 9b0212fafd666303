"""Which event loop an object belongs to.

An object that is used from another loop or thread would schedule work in a loop that does not run,
and wait for it for ever. So each public call checks the loop first, and changes nothing if it is
the wrong one.
"""

from asyncio import AbstractEventLoop, get_running_loop

from cluster_pool.exceptions import WrongLoopError


def running_loop() -> AbstractEventLoop:
    """The loop that runs in this thread; raises WrongLoopError when there is none."""
    try:
        return get_running_loop()
    except RuntimeError:
        raise WrongLoopError("called outside of an event loop") from None


def check_loop(owner: AbstractEventLoop) -> AbstractEventLoop:
    """``owner``, if that is the loop that runs in this thread; else raises WrongLoopError."""
    try:
        if get_running_loop() is owner:
            return owner
    except RuntimeError:
        raise WrongLoopError("called outside of an event loop") from None
    raise WrongLoopError("called in another event loop than the one it was started in")
