"""The drain budget of a cluster: how many connections per second each drainer may close now.

Each drainer holds a lease on a share of one budget and renews it every second or so. This is the
rule by which shares are granted. ``backplane/lua/drain.lua`` is the same rule in Redis, number for
number; a test compares both. This one serves a process without Redis, and the simulation.

With R the budget, a drainer's *floor* the rate that it needs to be done by its deadline, and S the
sum of floors: a share is the floor plus a part of R - S, in proportion to what is left to close. A
grant never lifts the sum of grants above max(R, S). After any event, the sum is below that within
one renewal.
"""

from collections.abc import Collection
from dataclasses import dataclass
from math import inf
from typing import Final

DRAINING: Final = "draining"
PAUSED: Final = "paused"
ANNOUNCING: Final = "announcing"
"""It closes no connection yet, but its process will stop: other nodes do not count on it."""
STOPPING: Final = (DRAINING, ANNOUNCING)

HEADROOM: Final = 200.0
"""Connections per second that a node can accept unless it is configured otherwise."""
USED: Final = 0.7
"""Part of the headroom of all acceptors that drains use when no drainer names a rate."""
RENEWAL: Final = 1.0
LONGEST_RENEWAL: Final = 5.0
RENEWAL_PER_DRAINER: Final = 0.02
"""Seconds between two renewals of a drainer, so that Redis is asked 50 times a second at most."""
TTL: Final = 3.0
"""Renewals that a lease lasts: the share of a drainer that dies is free within four."""
CALM: Final = 2.0
"""Renewals during which no rate grows after the record of the drainers was lost."""
LATE: Final = 0.1
"""Seconds by which a renewal may be late; waiting for the renewals of others lasts that longer."""
MAX_MISSED: Final = 2
"""Renewals below its floor after which a drainer is granted its floor in any case."""
HURRY: Final = 5.0
"""Seconds before its deadline from which on a drainer is granted its floor in any case."""
CLOSABLE: Final = 2000.0
"""Closes per second that one process can do; a larger share would be lost to the others."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A drainer's request for a lease.

    Attributes:
        node: the drainer.
        state: DRAINING, PAUSED or ANNOUNCING.
        remaining: connections whose close has not begun.
        total: that number when the drain began.
        time_left: seconds until all of them must have begun to close; inf without a deadline.
        max_rate: closes per second that it names for the whole cluster; inf for none.
        rate: closes per second that it does at the moment.
        known: whether it has had a lease before.
        closable: closes per second that it can do.
    """

    node: str
    state: str
    remaining: int
    total: int
    time_left: float = inf
    max_rate: float = inf
    rate: float = 0.0
    known: bool = False
    closable: float = CLOSABLE


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease on a share of the budget.

    Attributes:
        rate: closes per second that its holder may do.
        budget: R, closes per second of the whole cluster.
        needed: S, closes per second that the deadlines of all drainers need.
        renew: seconds until it should be renewed.
        ttl: seconds that it lasts.
        drainers: how many hold leases, the caller included.
        living: nodes that hold a node's lease, drainers among them.
        acceptors: nodes that accept newcomers.
        deserted: whether there are no acceptors, and every other living node drains or has
            announced that it stops. False while the record may have been lost.
    """

    rate: float
    budget: float
    needed: float
    renew: float
    ttl: float
    drainers: int
    living: int
    acceptors: int
    deserted: bool = False


@dataclass(slots=True)
class Entry:
    """The record of one drainer; times on the clock of the record."""

    state: str
    remaining: int
    deadline: float
    max_rate: float
    rate: float
    missed_floor: int
    seen: float
    expiry: float

    def left(self, now: float) -> float:
        """Connections left to close, if it has kept its rate since it was last seen."""
        if self.state != DRAINING:
            return 0.0
        return max(0.0, self.remaining - self.rate * (now - self.seen))

    def floor(self, now: float) -> float:
        """Closes per second that it needs to be done by its deadline."""
        if self.deadline == inf:
            return 0.0
        return self.left(now) / max(self.deadline - now, 0.001)


class DrainBudget:
    """The drainers of one cluster."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}
        self._calm_until = -inf

    def give_back(self, node: str) -> None:
        """A drainer has begun every close, or was cancelled: its share is free."""
        self._entries.pop(node, None)

    def lease(
        self,
        now: float,
        ask: Ask,
        *,
        headroom: float = inf,
        setting: float = inf,
        living: int = 1,
        acceptors: int = 0,
        others: Collection[str] | None = None,
    ) -> Grant:
        """Grant a share to one drainer.

        Args:
            headroom: connections per second that all acceptors together can accept.
            setting: closes per second that the cluster allows; inf for none.
            living, acceptors: as in the grant.
            others: the other living nodes; None when they are not known.
        """
        entries = self._entries
        for node in [node for node, entry in entries.items() if entry.expiry <= now]:
            del entries[node]
        before = entries.get(ask.node)
        drainers = len(entries) + (before is None)
        renew = min(max(RENEWAL, RENEWAL_PER_DRAINER * drainers), LONGEST_RENEWAL)
        if before is None and ask.known:
            self._calm_until = now + CALM * renew
        mine = entries[ask.node] = Entry(
            ask.state,
            ask.remaining,
            now + ask.time_left,
            ask.max_rate,
            0.0,
            before.missed_floor if before else 0,
            now,
            now + TTL * renew,
        )
        budget, needed = self._budget(mine, headroom, setting), self._needed(now)
        again = renew
        if ask.state == DRAINING:
            share = self._grant(now, ask, mine, budget, needed)
            if mine.rate < share / 2:
                again = self._when_others_have_renewed(now, mine, renew)
        deserted = not acceptors and now >= self._calm_until and self._all_stopping(others)
        return Grant(
            mine.rate, budget, needed, again, TTL * renew, drainers, living, acceptors, deserted
        )

    def _all_stopping(self, others: Collection[str] | None) -> bool:
        stopping = {node for node, entry in self._entries.items() if entry.state in STOPPING}
        return others is not None and stopping.issuperset(others)

    def _when_others_have_renewed(self, now: float, mine: Entry, renew: float) -> float:
        """Seconds until the drainers that hold more than their share will have given it up."""
        holders = [one.seen for one in self._entries.values() if one is not mine and one.rate]
        return max(LATE, max(holders) + renew + LATE - now) if holders else renew

    def _budget(self, mine: Entry, headroom: float, setting: float) -> float:
        active = [one for one in self._entries.values() if one.state == DRAINING or one is mine]
        return min(
            setting, *[USED * headroom if one.max_rate == inf else one.max_rate for one in active]
        )

    def _needed(self, now: float) -> float:
        return sum(entry.floor(now) for entry in self._entries.values())

    def _grant(self, now: float, ask: Ask, mine: Entry, budget: float, needed: float) -> float:
        """Set the rate of an entry; returns what it would be if no other held too much."""
        entries = self._entries
        floor = mine.floor(now)
        weight = sum(one.left(now) for one in entries.values())
        above = max(0.0, budget - needed)
        spare = above * mine.remaining / weight if mine.remaining else 0.0
        share = max(floor, min(floor + spare, ask.closable))
        held = sum(one.rate for one in entries.values() if one is not mine)
        rate = min(share, max(0.0, max(budget, needed) - held))
        if now < self._calm_until:
            rate = min(rate, ask.rate) if budget else ask.rate  # without: headrooms are lost, too
        if mine.missed_floor >= MAX_MISSED or ask.time_left < HURRY:
            rate = max(rate, floor)
        mine.missed_floor = mine.missed_floor + 1 if rate < floor * 0.999 else 0
        mine.rate = rate
        return share
