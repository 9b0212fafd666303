"""The state of this node's lease, its timed right to own members, as the other parts read it.

A lease is *held* from a join or a heartbeat until a little before Redis ends it, by this node's own
clock. It is *settled* while it is held and everything that this node owns is registered under its
incarnation. It is *broken* from its end until everything is registered under the next incarnation:
another node may have claimed ids of this one meanwhile. Only ``cluster/lease_keeper.py``, whose
task joins, renews and rejoins, writes this state.
"""

import asyncio
import math
import time

from cluster_pool.core.config import Timing

MARGIN = 1.0
"""Seconds by which this node's own clock ends a lease early, at most a fifth of it."""

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def boottime() -> float:
    """Seconds on a clock that goes on while the machine is suspended."""
    return time.clock_gettime(_CLOCK)


class LeaseState:
    """Whether this node may own members now, and under which incarnation.

    Attributes:
        incarnation: the name of the lease; "" before the first.
        held_since: when the join of this incarnation was sent.
        renewed_at: when the last acknowledged renewal was sent.
        living: how many nodes held a lease at the last heartbeat.
        failing: whether the last heartbeat failed, so that the next one waits for its time.
        needed: set to make the keeper look at once.
    """

    def __init__(self, timing: Timing) -> None:
        self._ttl = timing.lease
        self._lasts = timing.lease - min(MARGIN, timing.lease / 5)
        self._until = 0.0
        self._broken = False
        self._alone_since = math.inf
        self._settled = asyncio.Event()
        self.incarnation = ""
        self.held_since = 0.0
        self.renewed_at = 0.0
        self.living = 1
        self.failing = False
        self.needed = asyncio.Event()

    # -- reading ---------------------------------------------------------------------------

    @property
    def held(self) -> bool:
        """Whether the lease is held, by this node's own clock; checked before every batch."""
        return boottime() < self._until

    @property
    def settled(self) -> bool:
        """Whether everything that is owned is registered under this incarnation.

        The clock is not read: a settled lease may be over already.
        """
        return self._settled.is_set()

    @property
    def unbroken(self) -> bool:
        """Whether no other node can have claimed ids that are owned here.

        False from the end of a lease until all that is owned is registered under the next one.
        """
        return self.held and not self._broken

    def seconds_left(self) -> float:
        """Seconds until the lease is over, by this node's own clock."""
        return max(0.0, self._until - boottime())

    def ages(self) -> dict[str, float | None]:
        """For ``statistics()``: seconds since the last renewal, and until the end; None without
        a lease."""
        if not self.incarnation or not self._until:
            return {"lease_age": None, "lease_left": None}
        return {"lease_age": boottime() - self.renewed_at, "lease_left": self.seconds_left()}

    def may_judge(self) -> bool:
        """Whether this node may call other nodes dead: it has held its own lease for a whole ttl.

        Before that, living nodes may not have joined again yet after Redis lost its state.
        """
        return boottime() - self.held_since >= self._ttl

    def alone_for(self) -> float:
        """Seconds for which every heartbeat has said that no other node lives; 0 if one did not."""
        return max(0.0, boottime() - self._alone_since)

    async def wait_held(self) -> None:
        """Wait until the lease is held, by the clock too, and settled.

        A waiting caller makes the keeper look at once, except while heartbeats fail: then they
        come no faster.
        """
        while not (self.held and self.settled):
            if not self.held:
                self.unsettle()
                if not self.failing:
                    self.needed.set()
            await self._settled.wait()

    # -- writing: for the keeper only ------------------------------------------------------

    def begin(self, incarnation: str, sent: float, living: int) -> None:
        """A lease was taken by a join that was sent at ``sent``."""
        self.break_if_over()
        self.incarnation = incarnation
        self.held_since = sent
        self.renew(sent, living)

    def renew(self, sent: float, living: int) -> None:
        """Redis has acknowledged a join or heartbeat sent at ``sent``; ``living`` nodes live."""
        self.living = living
        self._alone_since = min(self._alone_since, sent) if living <= 1 else math.inf
        self.renewed_at = sent
        self._until = sent + self._lasts

    def break_if_over(self) -> None:
        """If the lease is over by its clock, it is broken until the next :meth:`settle`."""
        self._broken = self._broken or not self.held

    def settle(self) -> None:
        """Everything that is owned is registered under this incarnation."""
        self._broken = False
        self._settled.set()

    def unsettle(self) -> None:
        """The owned claims may be registered wrongly: a new lease must be taken."""
        self._settled.clear()

    def end(self) -> None:
        """The lease is given up."""
        self._until = 0.0
        self.unsettle()
