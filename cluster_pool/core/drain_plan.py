"""One drainer's rate and deadline, with a lease and without. Pure: ``now`` is passed in.

While Redis answers, the lease decides. Without Redis a drain goes on: at the larger of the last
lease's rate and the rate that the deadline needs, and after the lease at a share so small that all
nodes together keep the budget.

A drain before the stop of its process gets a shorter deadline when no node accepts newcomers and
none will: closing slowly does not help then. Two readings of that must agree, a heartbeat apart,
without a different or missing reading in between. When a node accepts newcomers after all, the
drain gets its deadline back.
"""

from dataclasses import dataclass, replace
from math import inf
from typing import Final

from cluster_pool.core.drain_budget import (
    ANNOUNCING,
    CLOSABLE,
    DRAINING,
    HEADROOM,
    HURRY,
    PAUSED,
    RENEWAL,
    USED,
    Ask,
    Grant,
)

RESERVE: Final = 0.1
"""Part of the grace that is kept for close handshakes, within the bounds below."""
LEAST_RESERVE: Final = 2.0
MOST_RESERVE: Final = 10.0
MOST_OF_GRACE: Final = 0.25
FRESH: Final = 2 / 3
"""Part of a lease's time after which its renewal is overdue: Redis does not answer."""
ANNOUNCE: Final = 5.0
"""Seconds for which a node announces that it will drain, before it refuses newcomers."""


def reserve_of(grace: float) -> float:
    """Seconds before the end of a grace by which every close has begun."""
    return min(max(RESERVE * grace, LEAST_RESERVE), MOST_RESERVE, MOST_OF_GRACE * grace)


def announcement_of(grace: float | None, asked: float | None) -> float:
    """Seconds to announce: what was asked, else 5, but no more than a quarter of the grace."""
    seconds = ANNOUNCE if asked is None else asked
    return seconds if grace is None or asked is not None else min(seconds, MOST_OF_GRACE * grace)


@dataclass(slots=True)
class DrainPlan:
    """One drain of one node, on any monotonic clock.

    Attributes:
        node: the drainer.
        began: when it began to close and first asked for a lease.
        max_rate: closes per second that it names for the whole cluster; inf for none.
        deadline: when it must have ended; inf for never.
        reserve: seconds before the deadline by which every close has begun.
        nodes: the last known number of nodes.
        paused: it keeps its lease, and closes no connection.
        announcing: it has not begun to close: others are told that it will.
        last_grace: seconds until its deadline, from the first reading on that no node accepts
            newcomers, and at least half of them from the second; None never shortens it.
        agree: seconds between these two readings.
        hastened: whether they have agreed.
    """

    node: str
    began: float
    max_rate: float = inf
    deadline: float = inf
    reserve: float = 0.0
    nodes: int = 1
    paused: bool = False
    total: int = 0
    grant: Grant | None = None
    announcing: bool = False
    last_grace: float | None = None
    agree: float = 0.0
    hastened: bool = False
    _sent: float = 0.0
    _deserted: float | None = None
    """When it was first read that no node accepts newcomers, if every reading since agreed."""
    _patient: tuple[float, float] | None = None
    """Deadline and reserve before they were shortened."""

    def end_by(self, deadline: float, reserve: float) -> None:
        """Use a deadline if it is earlier than the present one."""
        if deadline < self.deadline:
            self.deadline, self.reserve = deadline, reserve
        if self._patient is not None and deadline < self._patient[0]:
            self._patient = deadline, reserve

    def granted(self, grant: Grant, sent: float) -> None:
        """A lease was granted to a request sent at ``sent``."""
        self.grant, self._sent = grant, sent
        self.nodes = max(grant.living, 1)
        if self.hastened and grant.acceptors:
            self._lengthen(grant)
        if not grant.deserted or self.paused or self.last_grace is None:
            self._deserted = None
        elif self._deserted is None:
            self._deserted = sent
        elif not self.hastened and sent - self._deserted >= self.agree:
            self._hasten(self._deserted, sent, self.last_grace)

    def unanswered(self) -> None:
        """No answer came: it is not known which nodes accept newcomers."""
        self._deserted = None

    def until_agreed(self, now: float) -> float:
        """Seconds until a reading can agree with the first one; inf when there is none."""
        if self._deserted is None or self.hastened:
            return inf
        return max(0.0, self._deserted + self.agree - now)

    def _hasten(self, since: float, now: float, seconds: float) -> None:
        self.hastened = True
        deadline = max(since + seconds, now + seconds / 2)
        if deadline < self.deadline:
            self._patient = self.deadline, self.reserve
            self.deadline, self.reserve = deadline, reserve_of(deadline - now)

    def _lengthen(self, grant: Grant) -> None:
        self.hastened = False
        self.grant = replace(grant, renew=0.0)  # asked for under the shorter deadline: ask again
        if self._patient is not None:
            self.deadline, self.reserve = self._patient
            self._patient = None

    def time_left(self, now: float) -> float:
        """Seconds until every close must have begun."""
        return max(0.0, self.deadline - self.reserve - now)

    def floor(self, now: float, remaining: int) -> float:
        """Closes per second that the deadline needs; inf when it is due."""
        left = self.time_left(now)
        if left == inf:
            return 0.0
        return remaining / left if left else inf

    def rate(self, now: float, remaining: int) -> float:
        """Closes per second that may be done now."""
        if self.paused:
            return 0.0
        floor, grant = self.floor(now, remaining), self.grant
        age = now - (self.began if grant is None else self._sent)
        if grant is None:
            patience, share = RENEWAL, 0.0 if age <= RENEWAL else self._share_unasked()
        elif age <= grant.ttl:
            patience, share = FRESH * grant.ttl, grant.rate
        else:
            patience, share = 0.0, grant.budget / max(grant.living + grant.drainers, 1)
        return share if age <= patience and self.time_left(now) >= HURRY else max(share, floor)

    def _share_unasked(self) -> float:
        """The share without any lease so far: as if all known nodes drained."""
        return (USED * HEADROOM if self.max_rate == inf else self.max_rate) / self.nodes

    def over_budget(self) -> bool:
        """Whether deadlines force more closes than the budget allows."""
        grant = self.grant
        return grant is not None and 0 < grant.budget * 1.001 < grant.needed

    def alone(self) -> bool:
        """Whether no node accepts the closed clients: then only deadlines close any."""
        return self.grant is not None and self.grant.budget == 0

    def ask(self, now: float, remaining: int) -> Ask:
        """The request for the next lease."""
        return Ask(
            node=self.node,
            state=PAUSED if self.paused else ANNOUNCING if self.announcing else DRAINING,
            remaining=remaining,
            total=max(self.total, remaining),
            time_left=self.time_left(now),
            max_rate=self.max_rate,
            rate=min(self.rate(now, remaining), CLOSABLE) if self.grant is not None else 0.0,
            known=self.grant is not None,
            closable=CLOSABLE,
        )
