"""Many nodes that drain, in steps of the pacer: the planning code itself, connections as counts."""

from collections.abc import Callable
from math import inf
from random import Random
from typing import Final

from cluster_pool.core.drain_budget import HEADROOM, RENEWAL, USED, Ask, DrainBudget, Grant
from cluster_pool.core.drain_plan import DrainPlan, reserve_of
from cluster_pool.core.pacing import STEP, Pacer

SECOND: Final = round(1 / STEP)
HEARTBEAT: Final = 3.0
"""Seconds between two reports of an acceptor's headroom."""


class Drainer:
    """One drain, as ``local/drain_run.py`` does it."""

    def __init__(
        self,
        node: str,
        now: float,
        remaining: int,
        *,
        max_rate: float = inf,
        grace: float | None = None,
        nodes: int = 1,
        start: float = 0.0,
        announce: float = 0.0,
        last_grace: float | None = None,
    ) -> None:
        self.plan = DrainPlan(
            node,
            now,
            max_rate,
            nodes=nodes,
            total=remaining,
            last_grace=last_grace,
            agree=HEARTBEAT,
        )
        self.plan.announcing = announce > 0
        self._announced = now + announce
        if grace is not None:
            self.plan.deadline, self.plan.reserve = now + grace, reserve_of(grace)
        self.remaining = remaining
        self.renew_at = now
        self.ended = inf
        self._pacer = Pacer(now, start)

    def renew(self, now: float, lease: Callable[[Ask], Grant] | None) -> None:
        """Ask for a lease; None is a budget that does not answer."""
        plan = self.plan
        if plan.announcing and plan.last_grace is None:
            self.renew_at = now + RENEWAL  # it is not told that its process will stop
            return
        if lease is None:
            plan.unanswered()
        else:
            plan.granted(lease(plan.ask(now, self.remaining)), now)
        pause = RENEWAL if plan.grant is None else plan.grant.renew
        self.renew_at = now + min(pause, plan.until_agreed(now))

    def step(self, now: float) -> int:
        """Close the connections that are due; gives how many."""
        if self.plan.announcing:
            if now < self._announced and not self.plan.hastened:
                return 0
            self.plan.announcing, self.plan.grant = False, None
            self.plan.began = self.renew_at = now
        rate = self.plan.rate(now, self.remaining)
        done = int(min(self._pacer.due(now, rate), self.remaining))
        self.remaining -= done
        if not self.remaining:
            self.ended = now
        return done


class Cluster:
    """Nodes that accept or drain, and their budget.

    Attributes:
        redis: whether the budget answers.
        advertised: the last reported headroom of each acceptor.
        chasing: acceptors report less while they take more, which the library does not do.
        closes: by step, of all drainers.
        limits: by step, the larger of the budget and of what deadlines need.
    """

    def __init__(self, nodes: int = 100, headroom: float = HEADROOM, setting: float = inf) -> None:
        self.now = 0.0
        self.redis, self.chasing = True, False
        self.drain_budget = DrainBudget()
        self.random = Random(nodes)
        self.headroom, self.setting = headroom, setting
        self.advertised = {f"n{number}": headroom for number in range(nodes)}
        self.drainers: dict[str, Drainer] = {}
        self.gone: list[Drainer] = []
        self.closes: list[int] = []
        self.limits: list[float] = []
        self.kept: set[str] = set()
        """Nodes that live and take no newcomers: drained, and not stopping."""
        self._unheard: dict[str, float] = {}

    # -- what happens ----------------------------------------------------------------------

    def drain(
        self,
        nodes: int,
        each: int = 10_000,
        max_rate: float = inf,
        grace: float | None = None,
        announce: float = 0.0,
        last_grace: float | None = None,
    ) -> list[str]:
        """So many acceptors begin to drain; gives their names."""
        names = list(self.advertised)[:nodes]
        living = len(self.advertised) + len(self.drainers)
        for name in names:
            del self.advertised[name]
            self.drainers[name] = Drainer(
                name,
                self.now,
                each,
                max_rate=max_rate,
                grace=grace,
                nodes=living,
                start=self.random.random(),
                announce=announce,
                last_grace=last_grace,
            )
        return names

    def crash(self, names: list[str]) -> None:
        """Drainers or acceptors vanish without a word."""
        for name in names:
            self.advertised.pop(name, None)
            self.drainers.pop(name, None)
            self.kept.discard(name)

    def flush(self) -> None:
        """The budget is lost, and so is the headroom until each acceptor's next heartbeat."""
        self.drain_budget = DrainBudget()
        for name in self.advertised:
            self._unheard[name] = self.now + self.random.random() * HEARTBEAT

    # -- time passes -----------------------------------------------------------------------

    def run(self, seconds: float = inf) -> None:
        """Go on for so long, or until everything is closed."""
        end = self.now + seconds
        while self.drainers and self.now < end - STEP / 2:
            self._step()

    def _step(self) -> None:
        step = len(self.closes) + 1
        self.now = now = step * STEP
        if step % 10 == 1:
            self._limit = max(self.budget(), self.needed())
        if self.chasing and step % round(HEARTBEAT / STEP) == 0:
            taken = sum(self.closes[-2 * SECOND :]) / 2 / max(len(self.advertised), 1)
            self.advertised = dict.fromkeys(self.advertised, max(0.0, self.headroom - taken))
        done = 0
        for name, drainer in list(self.drainers.items()):
            if now >= drainer.renew_at:
                late = now + self.random.random() * STEP  # loops are, so that the order changes
                drainer.renew(late, self._lease())
            done += drainer.step(now)
            if not drainer.remaining:
                self.gone.append(self.drainers.pop(name))
                if self.redis:
                    self.drain_budget.give_back(name)
        self.closes.append(done)
        self.limits.append(self._limit)

    def _lease(self) -> Callable[[Ask], Grant] | None:
        if not self.redis:
            return None
        heard = [
            room for name, room in self.advertised.items() if self._unheard.get(name, 0) <= self.now
        ]
        living = len(heard) + len(self.drainers)
        return lambda ask: self.drain_budget.lease(
            self.now,
            ask,
            headroom=sum(heard),
            setting=self.setting,
            living=living,
            acceptors=len(heard),
            others={*self.drainers, *self.kept} - {ask.node},
        )

    # -- what should be --------------------------------------------------------------------

    def budget(self) -> float:
        """R, for the drainers of now."""
        room = USED * self.headroom * len(self.advertised)
        mosts = [drainer.plan.max_rate for drainer in self.drainers.values()]
        return min(self.setting, *[room if max_rate == inf else max_rate for max_rate in mosts])

    def needed(self) -> float:
        """S, for the drainers of now."""
        return sum(one.plan.floor(self.now, one.remaining) for one in self.drainers.values())

    # -- what was --------------------------------------------------------------------------

    def window(self, end: int) -> tuple[int, float]:
        """The closes of the second that ends with this step, and the highest limit in it."""
        return sum(self.closes[end - SECOND : end]), max(self.limits[end - SECOND : end])

    def windows(self) -> list[tuple[float, int, float]]:
        """For every second that can be cut out: its end, its closes, and its limit."""
        return [(end * STEP, *self.window(end)) for end in range(SECOND, len(self.closes) + 1)]

    def use(self, since: float = 0.0, until: float = inf) -> float:
        """The used part of all allowed closes, in a span of time."""
        first, last = round(since / STEP), round(min(until, self.now) / STEP)
        return sum(self.closes[first:last]) / (sum(self.limits[first:last]) * STEP)
