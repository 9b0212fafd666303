"""Random events at drainers and their budget: it holds, no drainer starves, all is closed."""

import os
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cluster_pool.core.drain_budget import (
    HEADROOM,
    HURRY,
    LATE,
    RENEWAL,
    TTL,
    USED,
    Ask,
    DrainBudget,
    Grant,
)
from cluster_pool.core.pacing import STEP
from tests.backplane.budgets import ScriptedBudget
from tests.core.simulation import Drainer

EXAMPLES = int(os.environ.get("CLUSTER_POOL_EXAMPLES", "0"))
RENEWED = RENEWAL + LATE + 2 * STEP
"""Seconds after which everyone has renewed."""
CALM = 3 * RENEWED
"""Seconds after which rates may grow again once a lost budget was rebuilt."""

names = st.sampled_from("abcdef")
rates = st.sampled_from([inf, inf, 50.0, 120.0, 200.0])
having = precondition(lambda self: self.drainers)


class CoreBudget(DrainBudget):
    """The budget in Python, which can be lost, too."""

    def forget(self) -> None:
        self.__init__()  # type: ignore[misc]  # all that there is


class Drains(RuleBasedStateMachine):
    """Up to six drainers; a derived class says where their budget is."""

    drain_budget: ClassVar[ScriptedBudget | CoreBudget]

    @initialize()
    def begin(self) -> None:
        """No drain, and two nodes that accept."""
        self.drain_budget.forget()
        self.now = 1000.0
        self.drainers: dict[str, Drainer] = {}
        self.overdue: set[Drainer] = set()
        """Drainers that were paused, and may be late."""
        self.dead: list[tuple[float, Drainer]] = []
        self.starving: dict[str, int] = {}
        self.setting, self.acceptors = inf, 2
        self.lost_at, self.lost = -inf, set[Drainer]()
        self.quiet_at = self.growing_at = self.known_at = self.now
        self.needs: deque[float] = deque(maxlen=round(RENEWED / STEP))
        self.limits: deque[float] = deque(maxlen=round(RENEWED / STEP))

    def happened(self, waits: float = 0.0) -> None:
        """The invariants hold again a renewal later; rates grow by the next, or after a wait."""
        self.quiet_at = max(self.quiet_at, self.now + RENEWED)
        self.growing_at = max(self.growing_at, self.now + waits + 2 * RENEWED)

    # -- what happens ----------------------------------------------------------------------

    @rule(
        name=names,
        each=st.integers(0, 800),
        max_rate=rates,
        grace=st.sampled_from([None, None, 8.0, 30.0]),
        start=st.floats(0, 0.99),
    )
    def join(
        self, name: str, each: int, max_rate: float, grace: float | None, start: float
    ) -> None:
        if name not in self.drainers:
            self.drainers[name] = Drainer(
                name, self.now, each, max_rate=max_rate, grace=grace, nodes=8, start=start
            )
            self.starving[name] = 0
            self.happened()

    @having
    @rule(name=names, silently=st.booleans())
    def go(self, name: str, silently: bool) -> None:
        """Crash, or be cancelled; the budget counts the dead until their leases end."""
        drainer = self.drainers.pop(name, None)
        if drainer and silently:
            self.dead.append((self.now + TTL + RENEWED, drainer))
            self.happened(TTL)
        elif drainer:
            self.drain_budget.give_back(name)
            self.happened()

    @having
    @rule(name=names, paused=st.booleans())
    def pause(self, name: str, paused: bool) -> None:
        """Pause or resume; the budget is told at once."""
        drainer = self.drainers.get(name)
        if drainer and drainer.plan.paused != paused:
            drainer.plan.paused, drainer.renew_at = paused, self.now
            self.overdue.add(drainer)
            self.happened()

    @having
    @rule()
    def flush(self) -> None:
        """A renewal passes until the budget knows the named rates, and another until all obey.

        Without acceptors it takes their headrooms for lost, too, for as long as it is calm.
        """
        self.drain_budget.forget()
        self.starving = dict.fromkeys(self.starving, 0)
        self.happened(CALM)
        self.quiet_at = self.now + 2 * RENEWED
        self.known_at = self.now + CALM + RENEWED
        self.lost_at = self.now
        self.lost = {drainer for drainer in self.drainers.values() if drainer.plan.grant}

    @rule(setting=rates, acceptors=st.integers(0, 3))
    def change(self, setting: float, acceptors: int) -> None:
        """Change the cluster's setting, and the number of acceptors."""
        self.setting, self.acceptors = setting, acceptors
        self.happened()

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 2.0, 4.0, 8.0]))
    def wait(self, seconds: float) -> None:
        for _ in range(round(seconds / STEP)):
            self.step()

    def step(self) -> None:
        self.now += STEP
        self.needs.append(self.needed())
        self.limits.append(max(self.budget(), self.needs[-1]) + self.needed(within=HURRY))
        for name, drainer in list(self.drainers.items()):
            if self.now >= drainer.renew_at - STEP / 2:
                drainer.renew(self.now, self.lease)
            drainer.step(self.now)
            if not drainer.remaining:
                del self.drainers[name]
                due = drainer.plan.deadline - drainer.plan.reserve
                assert self.now <= due + 2 * STEP or drainer in self.overdue
                self.drain_budget.give_back(name)
                self.growing_at = max(self.growing_at, self.now + 2 * RENEWED)
        if self.now > (self.quiet_at if self.budget() else max(self.quiet_at, self.known_at)):
            self.check_sum()
        if self.now > self.growing_at:
            self.check_growth()

    def lease(self, ask: Ask) -> Grant:
        grant = self.drain_budget.lease(
            self.now,
            ask,
            headroom=self.acceptors * HEADROOM,
            setting=self.setting,
            living=8,
            acceptors=self.acceptors,
        )
        floor = self.drainers[ask.node].plan.floor(self.now, ask.remaining)
        short = ask.state == "draining" and grant.rate < 0.99 * min(floor, 1000 * ask.remaining)
        self.starving[ask.node] = self.starving[ask.node] + 1 if short else 0
        assert self.starving[ask.node] <= 2, f"{ask.node} needs {floor}, and has {grant}"
        if self.drainers[ask.node] in self.lost and self.now < self.lost_at + 2:
            assert grant.rate <= max(ask.rate, floor) + 0.001, (
                "it grew although the budget was lost"
            )
        return grant

    # -- what must hold --------------------------------------------------------------------

    def active(self) -> list[Drainer]:
        return [one for one in self.drainers.values() if not one.plan.paused]

    def budget(self) -> float:
        room = USED * HEADROOM * self.acceptors
        mosts = [one.plan.max_rate for one in self.active()]
        return min([self.setting, *[room if max_rate == inf else max_rate for max_rate in mosts]])

    def needed(self, within: float = inf) -> float:
        """The rate needed by drainers with so near a deadline; a pacer may be a close behind."""
        dead = [one for until, one in self.dead if until > self.now and not one.plan.paused]
        return sum(
            one.plan.floor(self.now, one.remaining + 1)
            for one in self.active() + dead
            if one.plan.time_left(self.now) <= within
        )

    def check_sum(self) -> None:
        """The granted rates stay within the limit of the last renewal or of this step, in which a
        drain may have ended; drainers with little time take what they need in any case."""
        granted = sum(one.plan.grant.rate for one in self.active() if one.plan.grant)
        assert granted <= 1.001 * max(self.budget(), *self.limits) + 0.01

    def check_growth(self) -> None:
        """Each drainer has a part of what deadlines leave, unless that is next to nothing."""
        if self.budget() > 1.1 * max(self.needs):
            weight = sum(one.remaining for one in self.active())
            for one in self.active():
                little = one.remaining < 0.05 * weight
                assert little or one.plan.rate(self.now, one.remaining) > 0, one.plan

    def teardown(self) -> None:
        """As soon as there is a budget and no pause, everything is closed."""
        if not hasattr(self, "drainers"):
            return
        self.change(setting=inf, acceptors=2)
        for name in "abcdef":
            self.pause(name=name, paused=False)
        left = sum(drainer.remaining for drainer in self.drainers.values())
        patience = self.now + CALM + 3 * RENEWED + 1.5 * left / self.budget()
        while self.drainers:
            self.step()
            assert self.now < patience, self.drainers
        self.drain_budget.give_back("a")


def run(drain_budget: ScriptedBudget | CoreBudget, examples: int) -> None:
    """Let hypothesis run it: the same examples every time, or as many as the environment says."""
    machine: Callable[..., Any] = type("DrainsHere", (Drains,), {"drain_budget": drain_budget})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES or examples,
            stateful_step_count=20,
            derandomize=not EXAMPLES,
            database=None,
            deadline=None,
            print_blob=True,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_in_python() -> None:
    """The implementation in Python."""
    run(CoreBudget(), 120)


def test_on_a_server(own_budget: ScriptedBudget) -> None:
    """The script on a server."""
    run(own_budget, 40)
