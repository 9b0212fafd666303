"""Operations that wait for the backplane or are in flight: their limits and their deadlines."""

import asyncio
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Final

from cluster_pool.backplane.batching import Operation
from cluster_pool.core.config import Limits
from cluster_pool.exceptions import BackplaneUnavailableError, PendingLimitError

IN_TIME: Final = "not sent in time: "
UNREACHED: Final = "Redis was not reached in time"
TICK: Final = 0.02
"""Seconds between two looks for operations past their deadline, at least."""


class Pending:
    """Counts operations and their bytes, from when they are queued until they are answered."""

    __slots__ = ("_limits", "bytes", "count")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.count = 0
        self.bytes = 0

    def admit(self, size: int) -> bool:
        """Count one more if there is room for it; alone, one of any size has room."""
        limits = self._limits
        if self.count and (
            self.count >= limits.pending_messages or self.bytes + size > limits.pending_bytes
        ):
            return False
        self.count += 1
        self.bytes += size
        return True

    def forget(self, operations: list[Operation]) -> None:
        """Count these no longer: they neither wait nor are in flight."""
        self.count -= len(operations)
        self.bytes -= sum([len(operation.item) for operation in operations])

    def full(self) -> PendingLimitError:
        """The error for an operation that was not admitted."""
        return PendingLimitError(
            f"{self.count} messages ({self.bytes} bytes) wait for the backplane"
        )


class Expiry:
    """Looks for operations past their deadline, at the soonest deadline that it was told of.

    Args:
        look: fails what is past its deadline at the given moment, and returns the soonest
            deadline of the rest, ``inf`` when nothing is left.

    Attributes:
        at: when it looks next; call :meth:`look_at` for a sooner deadline.
    """

    __slots__ = ("_look", "_loop", "_timer", "at")

    def __init__(self, loop: asyncio.AbstractEventLoop, look: Callable[[float], float]) -> None:
        self._loop = loop
        self._look = look
        self._timer: asyncio.TimerHandle | None = None
        self.at = inf

    def look_at(self, moment: float) -> None:
        """Look at ``moment``, instead of the time set before."""
        self.cancel()
        self.at = moment
        self._timer = self._loop.call_at(moment, self._fire)

    def cancel(self) -> None:
        """Do not look, until :meth:`look_at` is called."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self.at = None, inf

    def _fire(self) -> None:
        self._timer, self.at = None, inf
        now = self._loop.time()
        soonest = self._look(now)
        if soonest < self.at:
            self.look_at(max(soonest, now + TICK))


def late(why: str) -> BackplaneUnavailableError:
    """The error for operations that Redis did not execute, and that have no time left.

    Args:
        why: the reason for which it did not; "" if they came too late.
    """
    return BackplaneUnavailableError(
        IN_TIME + why if why else "Redis was reached too late; nothing was sent"
    )


def unreached(lane: Any, why: str) -> BackplaneUnavailableError:
    """The error for operations that wait for a lane at their deadline.

    Args:
        why: the reason for which they wait again; "" if they were never sent.
    """
    if why:
        return late(why)
    error: BackplaneUnavailableError = lane.shard.outage.error(UNREACHED)
    return error


def fail(operation: Operation, error: BaseException) -> None:
    """Fail one operation with an exception of its own, so that tracebacks do not pile up."""
    if operation.future.done():
        return
    if isinstance(error, BackplaneUnavailableError):
        own: BaseException = BackplaneUnavailableError(
            str(error), maybe_executed=error.maybe_executed
        )
        own.__cause__ = error
    else:
        own = type(error)(*error.args)
    operation.future.set_exception(own)


def fail_late(operations: Iterable[Operation], now: float, error: BaseException) -> float:
    """Fail operations past their deadline; returns the soonest deadline of the rest."""
    soonest = inf
    for operation in operations:
        if operation.deadline <= now:
            fail(operation, error)
        elif not operation.future.done():
            soonest = min(soonest, operation.deadline)
    return soonest
