"""Closing a node's connections at the pace that a budget grants, and waiting until they are closed.

Owns the pacing and the order. How much this node may close is the budget's to say: it is asked in a
task of its own, so that a budget which does not answer never holds up a close.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any, Final

from cluster_pool.core.drain_budget import RENEWAL, Grant
from cluster_pool.core.drain_plan import DrainPlan, reserve_of
from cluster_pool.core.pacing import STEP, Pacer, PeakRate
from cluster_pool.core.results import DrainReport
from cluster_pool.exceptions import BackplaneUnavailableError
from cluster_pool.local.closing import cut, is_gone
from cluster_pool.local.connection import Connection
from cluster_pool.local.drain_order import DrainOrder
from cluster_pool.local.drain_terms import Budget, Terms
from cluster_pool.local.outbox import begin_close, deliver
from cluster_pool.local.sweeper import look
from cluster_pool.local.table import ConnectionTable

log = logging.getLogger("cluster_pool.drain")

REASON: Final = "draining"
YIELD_EVERY: Final = 200
"""Closes of one step before others get their turn on the loop."""


class DrainRun:
    """One drain of one node.

    Args:
        coming: whether connections are still on their way into the table.
        nodes: how many nodes there are, as far as is known.
        agree: seconds between two readings that no node takes newcomers, before that is believed.
    """

    def __init__(
        self,
        node: str,
        table: ConnectionTable,
        budget: Budget,
        terms: Terms,
        *,
        coming: Callable[[], bool] = lambda: False,
        nodes: int = 1,
        agree: float = 0.0,
    ) -> None:
        self._time = asyncio.get_running_loop().time
        now = self._time()
        self._table = table
        self._budget = budget
        self._message, self._code = terms.message, terms.code
        self._coming = coming
        self._asked_at = now
        self._plan = DrainPlan(node, now, nodes=nodes, agree=agree)
        self._renew = asyncio.Event()
        self.tighten(terms)
        self._drain_order = DrainOrder(table, random.Random())
        self._peak = PeakRate()
        self._begun = 0
        self._forced = 0
        self._closing: deque[Connection] = deque()
        self._ended = asyncio.Event()
        self._announcing: asyncio.Timeout | None = None
        self._over_budget = self._alone = self._hastened = False
        self.cancelled = False
        self.hurried = False

    # -- what others may say meanwhile -----------------------------------------------------

    def tighten(self, terms: Terms) -> None:
        """Take over the rate and the deadline of terms that name them, the earlier deadline.

        A drain that is paused goes on: a new call for it asks for that.
        """
        plan = self._plan
        if terms.max_rate is not None:
            plan.max_rate = terms.max_rate
        if terms.last_grace is not None:
            plan.last_grace = terms.last_grace
        if terms.grace is not None:
            deadline = asyncio.get_running_loop().time() + terms.grace
            plan.end_by(deadline, reserve_of(terms.grace))
        self.pause(False)

    def pause(self, paused: bool) -> None:
        """Close no connection for a while, or go on; a deadline stays what it was."""
        self._plan.paused = paused
        self._renew.set()

    def cancel(self) -> None:
        """Close no connection any more, and end."""
        self.cancelled = True
        self._ended.set()

    def hurry(self) -> None:
        """Begin every close at once, and end without waiting for them."""
        self.hurried = True
        self._ended.set()

    async def announce(self, seconds: float) -> None:
        """Wait while others learn of the drain; it may be cancelled or hurried meanwhile.

        If its process stops then, they learn of it from the budget, and do not wait for it.
        """
        plan = self._plan
        plan.announcing = plan.last_grace is not None
        telling = self._renewing() if plan.announcing else contextlib.nullcontext()
        with contextlib.suppress(TimeoutError):
            async with telling, asyncio.timeout(seconds) as self._announcing:
                await self._ended.wait()
        self._announcing, plan.announcing, plan.grant = None, False, None

    def announce_at_most(self, seconds: float) -> None:
        """End an announcement that is under way earlier, if it would last longer than that."""
        limit = self._announcing
        if limit is not None and not limit.expired():
            ends = asyncio.get_running_loop().time() + seconds
            limit.reschedule(min(limit.when() or ends, ends))

    # -- closing ---------------------------------------------------------------------------

    async def run(self) -> DrainReport:
        """Close everyone. Ends when all of them are closed, or when it is cancelled or hurried."""
        plan = self._plan
        plan.began = asyncio.get_running_loop().time()
        self._drain_order.refill()
        plan.total = len(self._drain_order)
        try:
            async with self._renewing():
                await self._close_at_pace()
        finally:
            self._budget.give_back(plan.node)
        if not self.cancelled and not self.hurried:
            await self._wait_closed()
        return self.report()

    def report(self) -> DrainReport:
        """The account of what was done so far."""
        seconds = asyncio.get_running_loop().time() - self._asked_at
        forced = self._forced + sum(one._forced for one in self._closing)
        return DrainReport(
            self._begun, forced, seconds, self._peak.peak, self.cancelled, self._over_budget
        )

    def progress(self) -> dict[str, Any]:
        """Where it stands, for ``/status`` and metrics."""
        now, plan = self._time(), self._plan
        remaining = len(self._drain_order)
        left = plan.time_left(now)
        return {
            "paused": plan.paused,
            "remaining": remaining,
            "closed": self._begun,
            "rate": _finite(plan.rate(now, remaining)),
            "budget": _finite(plan.grant.budget if plan.grant else inf),
            "needed": _finite(plan.grant.needed if plan.grant else 0.0),
            "seconds_left": _finite(left),
            "over_budget": self._over_budget,
        }

    async def _close_at_pace(self) -> None:
        time = asyncio.get_running_loop().time
        pacer = Pacer(time(), random.random())
        while not self.cancelled:
            due = pacer.due(time(), inf if self.hurried else self._rate(time()))
            for at in range(int(min(due, len(self._drain_order)))):
                connection = self._drain_order.next()
                if connection is None:
                    break
                self._close(connection)
                if at % YIELD_EVERY == YIELD_EVERY - 1:
                    await asyncio.sleep(0)
            self._look_at_closing(time())
            if not self._drain_order:
                self._drain_order.refill()
                if not self._drain_order and (self.hurried or not self._coming()):
                    return
            await asyncio.sleep(0 if self.hurried else STEP)

    def _rate(self, now: float) -> float:
        return self._plan.rate(now, len(self._drain_order))

    def _close(self, connection: Connection) -> None:
        now = asyncio.get_running_loop().time()
        self._begun += 1
        self._table.counters.drained += 1
        self._peak.note(now)
        self._closing.append(connection)
        try:
            if self._message is not None:
                deliver(connection, self._message)
            begin_close(connection, self._code, REASON, self._plan.deadline - now)
        except Exception:
            self._table.counters.drain_errors += 1
            log.exception("closing %r failed: it is cut", connection)
            cut(connection)

    def _look_at_closing(self, now: float) -> None:
        """Forget whose socket is gone, from the oldest on; cut the oldest at its deadline."""
        while self._closing:
            oldest = self._closing[0]
            look(oldest, now)
            if not is_gone(oldest):
                return
            self._forced += oldest._forced
            self._closing.popleft()

    async def _wait_closed(self) -> None:
        time, plan = asyncio.get_running_loop().time, self._plan
        while self._closing and not self._ended.is_set():
            self._look_at_closing(time())
            if plan.hastened and time() >= plan.deadline:
                return
            if self._closing:
                await asyncio.sleep(STEP)

    # -- the budget ------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _renewing(self) -> AsyncIterator[None]:
        """Inside, the share is renewed."""
        task = asyncio.create_task(self._renew_forever(), name="cluster_pool drain lease")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _renew_forever(self) -> None:
        loop, plan = asyncio.get_running_loop(), self._plan
        while True:
            self._renew.clear()
            sent = loop.time()
            try:
                grant = await self._budget.lease(plan.ask(sent, len(self._drain_order)))
            except BackplaneUnavailableError as error:
                plan.unanswered()
                log.debug("no lease on the drain budget: %s", error)
            except Exception:
                plan.unanswered()
                log.exception("asking for a lease on the drain budget failed by itself")
            else:
                plan.granted(grant, sent)
                self._tell(grant)
            pause = plan.grant.renew if plan.grant is not None else RENEWAL
            pause = min(pause, plan.until_agreed(sent))
            try:
                async with asyncio.timeout_at(sent + pause):
                    await self._renew.wait()
            except TimeoutError:
                continue

    def _tell(self, grant: Grant) -> None:
        if self._plan.hastened != self._hastened:
            self._hastened = self._plan.hastened
            why = "no node is left that takes newcomers, or will"
            why = why if self._hastened else "a node takes newcomers again"
            log.info("%s: closing within %.1f s", why, self._plan.deadline - self._time())
        if self._hastened:
            self.announce_at_most(0)
        if self._plan.alone() and not self._alone:
            log.warning("no live node takes newcomers: only a deadline closes connections now")
        self._alone = self._plan.alone()
        if self._plan.over_budget() and not self._over_budget:
            self._over_budget = True
            self._table.counters.drains_over_budget += 1
            log.warning(
                "deadlines need %.0f closes a second, over the budget of %.0f: they are kept",
                grant.needed,
                grant.budget,
            )


async def finished(drain: DrainRun, task: "asyncio.Task[DrainReport]") -> DrainReport:
    """Wait for a drain that the caller began: cancelling the caller cancels the drain."""
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        drain.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise


def _finite(number: float) -> float | None:
    return None if number == inf else round(number, 3)
